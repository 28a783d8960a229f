"""What the benchmarks of speed are made of: servers to start, load to send, processor time to read, a picture to draw.

servers    the floor and the product, started alike     chats    load by wrk              streams  many readers at once
site       pages made of words                          relay    one token's way through  starts   start-up and indexing
figures    medians and spreads                          picture  lines over concurrency, as SVG
"""
