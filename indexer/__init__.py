"""Files in, a published build out: the offline half of the product.

    sources    files -> documents          chunking   documents -> passages
    formats/   one module a file type      build      passages -> an embedded, published index
    evaluate   questions with known answers -> figures

May use rag's ranks 0 and 1; nothing imports it.
"""
