"""A public data set, or a folder of your own, in; manifests out. One file per public corpus."""
