"""The console command `loralab`: what is no experiment."""
