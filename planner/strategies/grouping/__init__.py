"""Which DP rank attends on which GPUs, decided together with the experts.

Homes are fixed by their policy (rule 12), but which attention group is DP rank r is the
layout's choice: ranks whose tokens use the same experts may share a domain
(``docs/groups.md``). Axes: S places (groups) and DP ranks, C kinds of ranks.
"""
