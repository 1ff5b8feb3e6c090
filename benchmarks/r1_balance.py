"""Balance of DeepSeek-R1's experts: what is reached, what is proven, how fast.

    python -m benchmarks.r1_balance [case ...] [--threads 2]

Prints a Markdown table per case. Needs the shared data (``PLANNER_SHARED_DATA``).
"""
