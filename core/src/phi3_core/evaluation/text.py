"""The built-in evaluation text. Written for this project; it has no passage in common with the calibration text."""

EVALUATION_TEXT = """\
Once upon a time there was a young fisherman who lived in a small house by the sea. Every morning he got up before
the sun, pushed his boat into the water and rowed out to the rocks where the fish were. Every evening he came back,
sold what he had caught at the market, and gave the smallest fish to the cat that waited for him on the wall. One day
there was a storm, and he could not go out. The cat waited all the same. In the end the fisherman shared his bread
with her, and from then on she slept in the house.

"Do you think the weather will be better tomorrow?" asked his sister.

"I don't know," he said. "But the cat is asleep, and that is usually a good sign."

User: Can you explain the difference between weather and climate in two sentences?
Assistant: Weather is what happens in the atmosphere on a given day, such as rain on Tuesday or a storm tonight.
Climate is the average of the weather over many years, so it tells you what to expect rather than what you will get.
User: And why do forecasts get worse after a week?
Assistant: Because the atmosphere is chaotic: small errors in the measurements grow quickly, and after about ten
days they are as large as the weather itself.

class Stack:
    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)

    def pop(self):
        if not self.items:
            raise IndexError("pop from an empty stack")
        return self.items.pop()

    def __len__(self):
        return len(self.items)

A recipe for lentil soup: chop one onion and two carrots and soften them in olive oil. Add 250 grams of red lentils,
a teaspoon of cumin and a litre of vegetable stock, bring it to a boil, and let it simmer for 20 minutes. Season with
salt, pepper and the juice of half a lemon, and serve it with fresh bread.

Photosynthesis is the process by which green plants use sunlight to make food from carbon dioxide and water. It takes
place in the chloroplasts of the plant's cells. Chlorophyll absorbs the light, and the energy is used to split water
into oxygen and hydrogen.

Der Zug nach Berlin fährt heute um acht Uhr.
Le chat dort sur la table de la cuisine.
La biblioteca abre a las nueve de la mañana.
"""
