"""One poll of one workspace, and all workspaces with their configuration."""
