"""The server's rooms, lowest rank first. A module imports strictly lower ranks, never a sibling.

0  settings, errors, models, text, resilience   values and pure functions
1  vector_db, lexical                            the index on disk
   azure_openai, local_models                    what embeds and what answers
   state → conversations, rate_limits            what must agree between workers
   access, telemetry                             who is calling, and what happened
   prompt                                        history and passages to messages; pure
2  chat                                          the story: retrieve, ask, answer, remember
3  routes                                        HTTP in, JSON or events out
"""
