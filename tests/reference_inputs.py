"""Inputs that reference vectors give as text: formulas, options, literals.

Comes in: text such as ``v[0]=3.0; v[t]=3.0-t/10 for t>=1; len 200``. Goes out: lists of numbers.
Text is parsed, never evaluated as Python: only arithmetic and the functions named here.
"""

import ast
import json
import math
import operator
import re

FUNCTIONS = {
    name: getattr(math, name)
    for name in (
        "log10",
        "log2",
        "log",
        "exp",
        "sqrt",
        "sin",
        "cos",
        "tan",
        "tanh",
        "floor",
        "ceil",
    )
} | {"ln": math.log, "abs": abs, "min": min, "max": max, "round": round}
CONSTANTS = {"pi": math.pi, "e": math.e}
OPERATORS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Pow: operator.pow,
    ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
    ast.USub: operator.neg, ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip


def evaluate(text, names):
    """Value of an arithmetic expression or condition; names are numbers or lists."""

    def value(node):
        match node:
            case ast.Constant(value=bool() | int() | float() as number):
                return number
            case ast.Name(id=name) if name in names or name in CONSTANTS:
                return names[name] if name in names else CONSTANTS[name]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                return OPERATORS[type(op)](value(left), value(right))
            case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
                return OPERATORS[type(op)](value(operand))
            case ast.BoolOp(op=op, values=parts):
                return (all if isinstance(op, ast.And) else any)(value(part) for part in parts)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return value(body) if value(test) else value(orelse)
            case ast.Subscript(value=ast.Name(id=name), slice=index) if name in names:
                return names[name][int(value(index))]
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=arguments):
                if name in FUNCTIONS:
                    return FUNCTIONS[name](*map(value, arguments))
            case ast.Compare(left=left, ops=ops, comparators=others):
                sides = [value(left), *map(value, others)]
                triples = zip(ops, sides[:-1], sides[1:], strict=True)
                return all(OPERATORS[type(op)](one, two) for op, one, two in triples)
        raise ValueError(f"cannot read {ast.unparse(node)!r} in {text!r}")

    return value(ast.parse(text.strip().replace("^", "**"), mode="eval").body)


def read_lists(text):
    """All lists that a text defines, by name.

    Statements, apart by semicolons or line ends: ``x=1..200``, ``x=[1, 2]``, ``len 200``,
    ``v[0]=3``, ``v[t]=... for 1<=t<=12`` (the first that holds, also of ``v[t-1]``), ``v[t]=...
    otherwise`` and ``y=1-log10(x)`` (one value for each of the list's).
    """
    text = text.replace("≤", "<=").replace("≥", ">=").replace("−", "-")
    lists, numbers, places, rules, length = {}, {}, {}, {}, None
    apart = r"[;\n]|,(?=\s*(?:len\b|length\b|\w+\[\w+\]\s*=))"
    for statement in filter(None, map(str.strip, re.split(apart, text))):
        if found := re.fullmatch(r"(?:len|length|n)\s*[=:]?\s*(\d+)", statement):
            length = int(found[1])
            continue
        statement = re.sub(r"^[\w ]*:\s*", "", statement)  # "a loss series: v[0]=3"
        if found := re.fullmatch(r"(\w+)\[(\d+)\.\.\.?(\d+)\]\s*=(?!=)(.*)", statement):
            name, first, last, formula = found.groups()
            rules.setdefault(name, []).append(("t", formula, f"{first} <= t <= {last}"))
        elif found := re.fullmatch(r"(\w+)\[(\w+)\]\s*=(?!=)(.*)", statement):
            name, index, formula = found.groups()
            if index.isdigit():
                places.setdefault(name, {})[int(index)] = evaluate(formula, {**lists, **numbers})
            else:
                formula, condition = _condition(formula, index)
                rules.setdefault(name, []).append((index, formula, condition))
        elif found := re.fullmatch(r"(\w+)\s*=\s*(-?\d+)\s*\.\.\.?\s*(-?\d+)", statement):
            lists[found[1]] = list(range(int(found[2]), int(found[3]) + 1))
        elif found := re.fullmatch(r"(\w+)\s*=\s*(\[.*\])", statement):
            lists[found[1]] = literal(found[2])
        elif found := re.fullmatch(r"(\w+)\s*=(?!=)(.*)", statement):
            name, formula = found.groups()
            formula, condition = _condition(formula, "x")
            assert condition is None, f"cannot read {statement!r}"
            used = [other for other in lists if re.search(rf"\b{other}\b", formula)]
            rows = zip(*(lists[other] for other in used), strict=True)
            values = [
                evaluate(formula, {**numbers, **dict(zip(used, r, strict=True))}) for r in rows
            ]
            if used:
                lists[name] = values
            else:
                numbers[name] = evaluate(formula, numbers)
        else:
            raise ValueError(f"cannot read {statement!r}")
    for name in {**places, **rules}:
        lists[name] = _fill(name, places.get(name, {}), rules.get(name, []), length, numbers)
    return lists


def _condition(formula, index):
    formula, _, condition = re.sub(r"\botherwise\b|\belse$", "", formula).partition(" for ")
    if found := re.fullmatch(rf"\s*{index}\s*(?:=|in)\s*(\d+)\s*\.\.\.?\s*(\d+)\s*", condition):
        condition = f"{found[1]} <= {index} <= {found[2]}"
    return formula, condition.strip() or None


def _fill(name, places, rules, length, numbers):
    length = length if length is not None else max(places) + 1
    values = []
    for place in range(length):
        if place in places:
            values.append(places[place])
            continue
        for index, formula, condition in rules:
            known = {**numbers, index: place, name: values}
            if condition is None or evaluate(condition, known):
                values.append(evaluate(formula, known))
                break
        else:
            raise ValueError(f"no formula says what {name}[{place}] is")
    return values


def read_options(text):
    """Numbers given as ``name=number`` in a text."""
    found = re.findall(r"\b([A-Za-z]\w*)\s*=\s*(-?\d+(?:\.\d+)?)(?![\d.*/+-])", text)
    return {name: float(number) if "." in number else int(number) for name, number in found}


def literal(text):
    """The first list or mapping written out in a text, in JSON or Python's form."""
    for start in (place for place, character in enumerate(text) if character in "[{"):
        try:
            return json.JSONDecoder().raw_decode(text[start:])[0]
        except json.JSONDecodeError:
            try:
                return ast.literal_eval(text[start:].strip())
            except (SyntaxError, ValueError):
                continue
    raise ValueError(f"no list in {text!r}")
