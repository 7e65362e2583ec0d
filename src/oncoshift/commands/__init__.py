"""The subcommands of `oncoshift`; each imports what it needs when it runs, so `--help` is quick."""
