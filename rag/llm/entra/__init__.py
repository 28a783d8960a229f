"""Azure by identity: tokens of Microsoft Entra ID in place of keys, fetched and renewed. Needs `requirements-entra`."""
