"""The local key socket: keys, certificates and evidence for the programs of this machine, each as userdata allows."""
