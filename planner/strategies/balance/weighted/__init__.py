"""Free splits (``weighted``): how experts share GPUs, the shares, and the bound."""
