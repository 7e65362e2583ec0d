"""What the subcommands of `oncoshift` do. Each imports what it needs when it runs, so that `--help` is quick."""
