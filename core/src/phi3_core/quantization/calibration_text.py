"""The built-in calibration text: short pieces of what assistants are asked for.

It was written for this project. The evaluation text is another one (``evaluation/text.py``).
"""

CALIBRATION_TEXT = (
    """\
The ferry left the harbour twenty minutes late, because a farmer had driven his sheep onto the wrong deck and
nobody wanted to be the one to move them. Marta watched from the railing. She had crossed this strait every
summer since she was six, and every summer something absurd delayed the boat: a wedding party without its
groom, a piano, once a sleeping judge. By now she thought of the delay as part of the timetable.

"You could complain," said the man next to her.

"To whom? The captain is down there holding a lamb."

He laughed, and offered her half of his sandwich. It turned out that he repaired church organs, that he was
afraid of water, and that he believed, with some evidence, that the two facts had the same cause.
""",
    """\
User: My bread never rises properly. What am I doing wrong?
Assistant: Three causes explain most flat loaves. First, the yeast may be too old: stir a teaspoon of it into
100 ml of lukewarm water with a pinch of sugar, and if there is no foam after ten minutes, buy a new packet.
Second, the water may be too hot; anything above 45 degrees Celsius kills yeast. Third, the dough may need
more time. A cold kitchen can double the first rise from one hour to two.
User: It does foam. I wait exactly one hour, and my kitchen is at about 17 degrees.
Assistant: Then time is the likely answer. Don't watch the clock; watch the dough. It is ready when it has
doubled in size and a fingerprint fills in slowly.
""",
    """\
def moving_average(values: list[float], width: int) -> list[float]:
    \"\"\"Return the mean of each window of `width` neighbouring values.\"\"\"
    if width < 1:
        raise ValueError("width must be at least 1")
    total = sum(values[:width])
    result = [total / width] if len(values) >= width else []
    for i in range(width, len(values)):
        total += values[i] - values[i - width]
        result.append(total / width)
    return result

SELECT city, COUNT(*) AS orders, AVG(price) FROM sales WHERE year = 2021 GROUP BY city HAVING COUNT(*) > 10;

{"name": "lamp-07", "watts": 11.5, "rooms": ["hall", "attic"], "dimmable": true, "replaced": null}
""",
    """\
A glacier is not simply frozen water lying in a valley. Under its own weight the ice deforms and flows, faster
at the surface than at the bed, and it carries stones that grind the rock beneath it into flour so fine that
the lakes below turn turquoise. When summers melt more than winters add, the tongue retreats, leaving behind
a ridge of rubble called a moraine. Geologists read these ridges the way foresters read rings: each one marks
a pause of some decades, and together they record ten thousand years of climate.

Question: A tank holds 240 litres. One pump fills it in 6 hours, another in 4. How long do both take together?
Answer: The first pump delivers 240 / 6 = 40 litres an hour, the second 240 / 4 = 60. Together they deliver 100
litres an hour, so the tank is full after 240 / 100 = 2.4 hours, that is 2 hours and 24 minutes.
""",
    """\
Subject: Thursday's meeting

Dear Dr. Okafor,
thank you for the revised budget. Two points remain open: the travel costs in section 3.2 (we had agreed on
1,800 euros, the table says 2,150) and the delivery date of the sensors. Could you send me a short note on both
by Wednesday noon? I have attached the minutes of our last call.
Kind regards, Helen Brandt

Shopping list:
1. two lemons, a bunch of parsley
2. rice (the round one, for milk pudding)
3. batteries, size AA
4. something nice for Grandma
""",
    """\
Am Morgen lag Nebel über dem Fluss. Der alte Uhrmacher öffnete seinen Laden wie jeden Tag um acht, obwohl seit
Wochen niemand mehr gekommen war.

La bibliothécaire rangeait les livres par couleur. « On se souvient toujours de la couverture, jamais du titre. »

El tren de las siete pasa sin detenerse, pero el perro de la estación lo saluda todas las mañanas.

今天的天气很好,我们去公园散步吧。
""",
)
"""Separate sequences: every piece starts at position 0, as a prompt does."""
