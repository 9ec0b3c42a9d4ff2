"""What commands share: run folders, their data and models, backends, and long helpers of one command."""
