"""What models there are: frozen bases, and adapter releases proposed, judged and published. Nothing changes back."""
