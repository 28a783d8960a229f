"""Conversations of our own with one page known to answer the last question. Data only."""

from typing import NamedTuple


class Conversation(NamedTuple):
    """Questions of a visitor, in order, and the page that answers the last one."""

    asked: tuple[str, ...]
    page: str


SMALL_SITE = (
    Conversation(("How long does the warranty last?", "Does it cover the probes?"), "warranty.md"),
    Conversation(("What does the Reef plan cost?", "How long does it keep measurements?"), "pricing.md"),
    Conversation(("What does error E17 mean?", "How do I fix it?"), "guide/troubleshooting.md"),
    Conversation(("What does error E42 mean?", "And what should I do about that?"), "guide/troubleshooting.md"),
    Conversation(("How do I calibrate the salinity probe?", "How often?"), "guide/calibration.md"),
    Conversation(("How do I calibrate the salinity probe?", "And the temperature probe?"), "guide/calibration.md"),
    Conversation(("Which port does the REST API listen on?", "Is it reachable from outside?"), "guide/api.md"),
    Conversation(("How do I use the REST API?", "What are its limits?"), "guide/api.md"),
    Conversation(("What does the Reef plan cost?", "And for schools?", "How do they pay?"), "pricing.md"),
    Conversation(("Where is the pairing code printed?", "Which networks does it support?"), "guide/installation.md"),
    Conversation(("How do I install the probes?", "How deep?"), "guide/installation.md"),
    Conversation(("Wie reinige ich die Sonden?", "Und wie oft?"), "de/reinigung.md"),
    Conversation(
        ("Wie lange liegt die Sonde in Zitronensäure?", "Womit wird sie danach abgespült?"), "de/reinigung.md"
    ),
    Conversation(("Wie reinige ich die Sonden?", "Kann ich dafür eine Bürste nehmen?"), "de/reinigung.md"),
)

FASTAPI_DOCS = (
    Conversation(("How do I upload a file?", "Can I do that with several?"), "tutorial/request-files.md"),
    Conversation(("How do I declare a query parameter?", "How do I make it optional?"), "tutorial/query-params.md"),
    Conversation(("How can I run background tasks?", "Can they use dependencies?"), "tutorial/background-tasks.md"),
    Conversation(("How do I configure CORS?", "What are the defaults for it?"), "tutorial/cors.md"),
    Conversation(("How do I set a cookie in a response?", "And how do I read one?"), "tutorial/cookie-params.md"),
    Conversation(("How do I serve static files?", "What does mounting mean there?"), "tutorial/static-files.md"),
    Conversation(("How do I use WebSockets?", "How do I test them?"), "advanced/testing-websockets.md"),
    Conversation(("How do I use WebSockets?", "What happens when they disconnect?"), "advanced/websockets.md"),
    Conversation(("How do I use Jinja2 templates?", "How do I link to static files in them?"), "advanced/templates.md"),
    Conversation(("How do I deploy with Docker?", "And with several workers?"), "deployment/docker.md"),
    Conversation(("What are lifespan events?", "How do I test them?"), "advanced/testing-events.md"),
    Conversation(("How do I use GraphQL with FastAPI?", "Which libraries support it?"), "how-to/graphql.md"),
    Conversation(("How do I read settings from a .env file?", "What about caching them?"), "advanced/settings.md"),
    Conversation(("How do I handle errors with HTTPException?", "Can I add headers to it?"),
                 "tutorial/handling-errors.md"),
    Conversation(("How do I set up OAuth2 with JWT tokens?", "How long are they valid?"),
                 "tutorial/security/oauth2-jwt.md"),
    Conversation(("How do I run FastAPI behind a proxy?", "What is the root path for?"), "advanced/behind-a-proxy.md"),
    Conversation(("What is dependency injection?", "Can I do that with classes?"),
                 "tutorial/dependencies/classes-as-dependencies.md"),
    Conversation(("How do I use a SQL database?", "How do I create the tables in it?"), "tutorial/sql-databases.md"),
)  # fmt: skip

STAND_ALONE = (
    ("What does error E17 mean?", "How long does the warranty last?"),
    ("How long does the warranty last?", "Which port does the REST API listen on?"),
    ("Which port does the REST API listen on?", "Is there a discount for schools and public aquariums?"),
    ("What does the Reef plan cost?", "And where is the pairing code printed?"),
    ("What does the Reef plan cost?", "What does it mean when the display shows E42?"),
    ("Where is the pairing code printed?", "How do I pay?"),
    ("How long does the warranty last?", "Calibration"),
    ("How do I install the probes?", "How long does it take to clean the probes?"),
    ("What does the Reef plan cost?", "Wie lange liegt die Sonde in Zitronensäure?"),
    ("Wie reinige ich die Sonden?", "How often must the salinity probe be calibrated?"),
    ("Was kostet der Reef plan?", "Gibt es einen Rabatt für Schulen?"),
    ("How do I install the probes?", "请问保修期有多长？"),
    ("How do I install the probes?", "¿Cuánto dura la garantía del controlador?"),
    ("How do I install the probes?", "Y a-t-il une garantie sur le contrôleur ?"),
    ("How do I install the probes?", "保証期間はどのくらいですか？"),
)
"""Two questions each, the second of which needs nothing of the first."""
