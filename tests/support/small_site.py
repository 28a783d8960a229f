"""A little site about a product that does not exist, with facts that stand in one place only.

`write_small_site` puts it into a folder; `FACTS` says what can be asked about it. Knows nothing of the server.
"""

from dataclasses import dataclass
from pathlib import Path

SITE_URL = "https://brinewell.example"


@dataclass(frozen=True)
class Fact:
    """A question, the page that answers it, and the words on it that do.

    Look for the words in the sources: the emulated model says only the first sentence of a passage.
    """

    question: str
    source: str
    words: str


FACTS = (
    Fact("How long does the warranty last?", "warranty.md", "37 months"),
    Fact("Within how many days can I return the controller?", "warranty.md", "45 days"),
    Fact("What does the Reef plan cost per month?", "pricing.md", "6.50 euros"),
    Fact("Which port does the REST API listen on?", "guide/api.md", "8731"),
    Fact("What does error E17 mean?", "guide/troubleshooting.md", "probe is dry"),
    Fact("How often must the salinity probe be calibrated?", "guide/calibration.md", "every 90 days"),
    Fact("Where is the pairing code printed?", "guide/installation.md", "beneath the probe tray"),
    Fact("Wie lange liegt die Sonde in Zitronensäure?", "de/reinigung.md", "20 Minuten"),
)

OFF_TOPIC = "Who won the chess championship in Reykjavik?"
"""A question that no page has a word about."""

_PAGES = {
    "index.md": """
# Brinewell One

Brinewell One is an aquarium controller that keeps salt water between 24.0 and 26.5 °C. It watches temperature,
salinity and level, and switches heater, pump and light.

## What is in the box

The box holds the controller, one temperature probe, one salinity probe, a tray for both, and a 24 volt power
supply. Pumps and heaters are sold separately.
""",
    "pricing.md": """
# Prices and plans

Brinewell One costs 289 euros, with every probe that it needs. The price includes shipping within Europe.

## Reef plan

The Reef plan costs 6.50 euros a month and keeps measurements for five years. Without a plan, measurements are kept for
thirty days.

## Paying

Invoices are due within 14 days. Schools and public aquariums pay a fifth less on request.
""",
    "warranty.md": """
# Warranty and returns

The warranty lasts 37 months from the day of delivery. It covers the controller and both probes, but no damage from
fresh water pumps of other makers.

## Returns

A controller can be returned within 45 days, without a reason. The probes must be rinsed and dry; we pay the postage.
""",
    "guide/installation.md": """
# Installation

Setting up Brinewell One takes about 35 minutes and one screwdriver. Fill the aquarium before the controller is switched
on for the first time.

## Pairing with Wi-Fi

The pairing code is printed beneath the probe tray. Hold the blue button for six seconds, then type the code into the
app. Only networks on 2.4 GHz are supported.

## Mounting the probes

Both probes hang at least 8 centimetres below the surface, away from the heater.
""",
    "guide/calibration.md": """
# Calibrating the probes

The salinity probe must be calibrated every 90 days with a solution of 35 grams per litre. The temperature probe is
calibrated in the factory and needs nothing.

## Step by step

1. Rinse the salinity probe with distilled water.
2. Put it into the solution and wait until the light turns green.
3. Confirm with the blue button.
""",
    "guide/troubleshooting.md": """
# Troubleshooting

The display shows a code when something needs your hand.

## Error E17

Error E17 means that the salinity probe is dry. Top up the water until the probe is covered; the code disappears after
one minute.

## Error E42

Error E42 means that the circulation pump is blocked. Unplug the pump, remove the impeller and clear away sand.
""",
    "guide/api.md": """
# REST API

The REST API listens on port 8731 and speaks JSON. It is reachable in the local network only, and is switched off until
a token has been created in the app.

## Authentication

Every request carries the token in the header `X-Brine-Token`.

```bash
curl -H "X-Brine-Token: $TOKEN" http://brinewell.local:8731/v2/readings
```

## Limits

The API answers at most 12 requests a second.
""",
    "de/reinigung.md": """
# Reinigung der Sonden

Die Sonde liegt 20 Minuten in verdünnter Zitronensäure und wird danach mit destilliertem Wasser abgespült. Bürsten und
Scheuermittel beschädigen die Oberfläche.

## Wie oft

Einmal im Vierteljahr genügt. Bei starkem Algenwuchs empfehlen wir, die Sonden öfter zu prüfen.
""",
}


def write_small_site(folder: Path) -> Path:
    """The folder, filled with one Markdown file a page."""
    for name, text in _PAGES.items():
        page = folder / name
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text.lstrip(), encoding="utf-8")
    return folder
