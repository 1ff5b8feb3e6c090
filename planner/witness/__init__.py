"""The rules of copies and transfers, written a second time for the witnesses."""
