"""A folder of your own, in any common layout or another toolkit's lists, in; manifests out."""
