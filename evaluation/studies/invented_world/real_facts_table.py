"""Make the tables of languages and currencies in real_facts.yaml from Babel's CLDR data.

    cd evaluation/studies/invented_world; python real_facts_table.py real_facts.yaml

Names and capitals of countries in the file stay; languages, currencies and currency changes are
made again. It needs the package `babel` (the tables in the repository: 2.18).
"""

import datetime
import json
import re
import sys
from pathlib import Path

from babel import Locale
from babel.core import get_global
from babel.languages import get_official_languages
from babel.numbers import get_currency_name

from gradloc.config.yaml_source import parse_yaml

STILL = datetime.date(9999, 12, 31)
BEGIN, END = "# --- tables made by real_facts_table.py", "# --- end of tables\n"
# Currencies that CLDR takes for unchanged although they are not.
CURRENCY_EXCEPTIONS = {
    "BG": "the euro replaced the lev on 1 January 2026",
    "LR": "the US dollar is legal tender as well",
}
# Countries for which CLDR's one official language is not the whole story.
LANGUAGE_EXCEPTIONS = {
    "BF": "French lost its official status in 2024",
    "ER": "no language is official by law",
    "ET": "four more languages became official in 2020",
    "MK": "Albanian is official as well",
    "ML": "French lost its official status in 2023",
    "IQ": "Kurdish is official as well",
    "NE": "Hausa became the national language in 2025",
    "NG": "English is official, yet CLDR counts Yoruba too",
}
# Names that CLDR spells otherwise than most writers; the usual one comes first.
USUAL_NAMES = {
    "Afghan Afghani": ["afghani", "Afghan afghani"],
    "Bangla": ["Bengali", "Bangla"],
    "Bosnia-Herzegovina convertible mark": ["convertible mark", "Bosnian convertible mark"],
    "Botswanan pula": ["Botswana pula", "pula"],
    "British pound": ["pound sterling", "British pound", "pound"],
    "Chinese": ["Chinese", "Mandarin Chinese", "Mandarin", "Standard Chinese"],
    "Divehi": ["Dhivehi", "Divehi"],
    "Guyanaese dollar": ["Guyanese dollar", "dollar"],
    "Kyrgystani som": ["Kyrgyzstani som", "som"],
    "Laotian kip": ["Lao kip", "kip"],
    "Persian": ["Persian", "Farsi"],
    "Turkmenistani manat": ["Turkmen manat", "manat"],
    "US dollar": ["US dollar", "United States dollar", "U.S. dollar", "dollar"],
}


def currency_names(name: str) -> list[str]:
    """Accepted names of a currency, the usual one first: ``Croatian kuna``, ``kuna``."""
    if name in USUAL_NAMES:
        return USUAL_NAMES[name]
    words = name.split()
    shorter = [" ".join(words[-2:])] if len(words) > 2 and words[-2] in ("CFA", "CFP") else []
    return list(dict.fromkeys([name, *shorter, words[-1]]))


def legal_tenders() -> dict[str, list[tuple[str, datetime.date, datetime.date]]]:
    """Territory code -> its legal tenders as (name, first day, last day)."""
    return {
        code: [
            (
                re.sub(r"\s*\(.*\)", "", get_currency_name(currency, count=1, locale="en")),
                datetime.date(*start) if start else datetime.date.min,
                datetime.date(*end) if end else STILL,
            )
            for currency, start, end, is_tender in rows
            if is_tender
        ]
        for code, rows in get_global("territory_currencies").items()
    }


def changes(countries: dict[str, dict]) -> list[dict]:
    """Countries whose one legal tender replaced another, the earliest first.

    Redenominations (a new leone for the old leone) are left out: the answer reads the same.
    """
    rows = []
    for code, tenders in legal_tenders().items():
        now = [tender for tender in tenders if tender[2] == STILL]
        if len(now) != 1 or now[0][1] == datetime.date.min:
            continue
        name, start, _ = now[0]
        eve = start - datetime.timedelta(days=1)
        before = [tender for tender in tenders if tender[1] <= eve <= tender[2]]
        if len(before) != 1 or before[0][0].casefold() == name.casefold():
            continue
        old, old_since, old_until = before[0]
        known = countries.get(code) or {"name": Locale("en").territories.get(code, code)}
        names, old_names = currency_names(name), currency_names(old)
        rows.append({
            "country": known["name"],
            "capital": known.get("capital", [""])[0],
            "old": old,
            "new": name,
            # A short name only where it cannot mean the other currency.
            "targets": [text for text in names if text not in old_names],
            "old_targets": [text for text in old_names if text not in names],
            "old_since": old_since.isoformat(),
            "date": start.isoformat(),
            "settled": max(start, old_until + datetime.timedelta(days=1)).isoformat(),
        })  # fmt: skip
    return sorted(rows, key=lambda row: (row["date"], row["country"]))


def complete(code: str, country: dict) -> dict:
    """A country's row with its language and its currency, where it has exactly one."""
    row = {key: country[key] for key in ("name", "capital")}
    official = get_official_languages(code, de_facto=True)
    if len(official) == 1 and code not in LANGUAGE_EXCEPTIONS:
        language = Locale("en").languages[official[0]]
        row["language"] = USUAL_NAMES.get(language, [language])
    tenders = legal_tenders().get(code, [])
    now = [name for name, _, end in tenders if end == STILL]
    if len(now) == 1 and code not in CURRENCY_EXCEPTIONS:
        same = [start for name, start, _ in tenders if name.casefold() == now[0].casefold()]
        row |= {"currency": currency_names(now[0]), "currency_since": min(same).isoformat()}
    return row


def main(path: str) -> None:
    """Write the tables of the file again."""
    text = Path(path).read_text(encoding="utf-8")
    countries = parse_yaml(text)["countries"]
    rows = [f'  "{code}": {_flow(complete(code, country))}' for code, country in countries.items()]
    lines = ["countries:", *rows, "", "changes:"]
    lines += [f"  - {_flow(row)}" for row in changes(countries)]
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    table = "\n".join([BEGIN, *lines, ""])
    Path(path).write_text(f"{before}{table}{END}{after}", encoding="utf-8")


def _flow(row: dict) -> str:
    return json.dumps(row, ensure_ascii=False)


if __name__ == "__main__":
    main(sys.argv[1])
