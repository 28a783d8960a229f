"""Files and sites in, a published build out: the offline half of the product.

    formats/   one module or package a file type     passages/  documents -> passages
    reading/   files -> documents                    build      passages -> an embedded, published index
    sites/     a site -> documents                   adding     documents into the index that serves
                                                     evaluate   questions with known answers -> figures

May use all rooms up to access, for what uploads cost; the server imports none of it.
"""
