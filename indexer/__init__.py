"""Files in, a published build out: the offline half of the product.

    finding    folders -> files            chunking   documents -> passages
    sources    files -> documents          build      passages -> an embedded, published index
    site       a site -> documents         evaluate   questions with known answers -> figures
    formats/   one module a file type

May use rag's ranks 0 and 1; nothing imports it.
"""
