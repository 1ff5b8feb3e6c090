"""``fast``: balanced placements of every layer within milliseconds."""




