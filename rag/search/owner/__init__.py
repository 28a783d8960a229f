"""What an owner adds to a build beside its pages: answers in their own words, and words that mean the same."""
