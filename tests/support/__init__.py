"""What tests and benchmarks stand on: an Azure OpenAI emulator and the real server, each in its own process.

azure            the emulator as a test sees it: start, fail, heal, look at what was received
azure_app        the emulator's process: routes, keys, control          azure_chat     answers, JSON and streamed
azure_faults     what can go wrong on demand                            azure_vectors  texts to vectors
azure_errors     Azure's error bodies                                   azure_delivery how an answer is sent, or spoilt
azure_exchange   one request down to its socket
server           the real server and the real indexer as subprocesses   waiting        ports, and waiting for conditions
small_site       a little imaginary site with known facts
"""
