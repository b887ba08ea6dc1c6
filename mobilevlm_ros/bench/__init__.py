"""How fast a model package answers on this machine, stage by stage. What `mobilevlm bench` runs."""
