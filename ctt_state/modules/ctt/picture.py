"""A token's metadata: JSON with an SVG picture of its charge, both as data URIs.

Pure and in integers, so every node draws the same. Base64 and not plain text: a `#` would end a plain data URI.
"""

import json
from base64 import b64encode
from html import escape
from typing import Final

from ctt_state.origin import SOURCES, by_source
from ctt_state.records import CttConfig, Token
from ctt_state.units import TokenId

BAR_WIDTH: Final = 240  # of a full token, in pixels
COLORS: Final = ("#a0aec0", "#f6c945", "#7fb3d5", "#2e86c1", "#6b8e23", "#b07aa1")  # of the sources

# What XML cannot hold, not even escaped.
_NOT_IN_XML: Final = {code: "\ufffd" for code in (*range(0x20), 0xFFFE, 0xFFFF) if code not in (9, 10, 13)}

_SVG: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="320" height="200" viewBox="0 0 320 200" '
    'font-family="sans-serif" text-anchor="middle">'
    '<rect width="320" height="200" rx="16" fill="#14213d"/>'
    '<text x="160" y="44" font-size="18" fill="#ffffff">{symbol} #{token_id}</text>'
    '<rect x="36" y="72" width="248" height="56" rx="10" fill="none" stroke="#e5e5e5" stroke-width="4"/>'
    '<rect x="288" y="88" width="8" height="24" rx="3" fill="#e5e5e5"/>'
    '<rect x="40" y="76" width="{bar}" height="48" rx="6" fill="{color}"/>'
    '<text x="160" y="108" font-size="22" fill="#ffffff">{percent} %</text>'
    '<text x="160" y="160" font-size="16" fill="#ffffff">{energy:,} / {capability:,} Wh</text>'
    '<text x="160" y="184" font-size="12" fill="#a0aec0">{name}</text>{mix}</svg>'
)


def token_uri(config: CttConfig, token_id: TokenId, token: Token) -> str:
    """The metadata as `data:application/json;base64,`. It tells only what `MetadataUpdate` announces: the energy,
    the charge against the capability, and the known sources of which there is some."""
    metadata = {
        "name": f"{config.symbol} #{token_id}",
        "description": f"{config.name}: a rechargeable energy token of {config.capability_wh} Wh",
        "image": _data_uri("image/svg+xml", draw(config, token_id, token)),
        "attributes": [
            {"trait_type": "Energy (Wh)", "display_type": "number", "value": token.energy_wh},
            {"trait_type": "Capability (Wh)", "display_type": "number", "value": config.capability_wh},
            {"trait_type": "Charge (%)", "display_type": "number", "value": _percent(config, token)},
            *[
                {"trait_type": f"From {source} (Wh)", "display_type": "number", "value": wh}
                for source, wh in zip(SOURCES[1:], token.origin, strict=False)
                if wh
            ],
        ],
    }
    return _data_uri("application/json", json.dumps(metadata))


def draw(config: CttConfig, token_id: TokenId, token: Token) -> str:
    """The SVG. The bar ends at full; the percentage, rounded down, goes on when the capability was lowered. Below the
    bar and as long, a strip shows the sources."""
    percent = _percent(config, token)
    bar = min(token.energy_wh * BAR_WIDTH // config.capability_wh, BAR_WIDTH)
    return _SVG.format(
        symbol=_xml(config.symbol),
        name=_xml(config.name),
        token_id=token_id,
        bar=bar,
        color="#2a9d4a" if percent >= 50 else "#d98e04" if percent >= 20 else "#c1121f",
        percent=percent,
        energy=token.energy_wh,
        capability=config.capability_wh,
        mix=_strip(token, bar),
    )


def _strip(token: Token, width: int) -> str:
    """A piece for each source, in their order; what is less than a pixel has none."""
    pieces, start, seen = "", 0, 0
    for color, wh in zip(COLORS, by_source(token.origin, token.energy_wh), strict=True):
        seen += wh
        end = seen * width // max(token.energy_wh, 1)
        if end > start:
            pieces += f'<rect x="{40 + start}" y="134" width="{end - start}" height="6" fill="{color}"/>'
        start = end
    return pieces


def _percent(config: CttConfig, token: Token) -> int:
    return token.energy_wh * 100 // config.capability_wh


def _xml(text: str) -> str:
    return escape(text.translate(_NOT_IN_XML))


def _data_uri(mime: str, content: str) -> str:
    return f"data:{mime};base64,{b64encode(content.encode()).decode()}"
