"""Field accuracy that is true: estimated from few random labels of a sample whose bias is recorded."""
