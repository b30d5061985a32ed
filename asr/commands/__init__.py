"""The subcommands of `asr`, one file each; none imports another."""
