"""How the nano MobileVLM that ships with the package is made. Nothing at run time imports this."""
