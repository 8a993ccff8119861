"""The gateway's decisions: which container a host name leads to, and who may go there. nginx carries the bytes."""
