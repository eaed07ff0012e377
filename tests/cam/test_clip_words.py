"""The words of MS-COCO's classes, as the public code has them."""

from __future__ import annotations

from wsss.cam.clip_words import BACKGROUND_WORDS, background_words, class_words

# By the annotation files' own names and order.
NAMES = """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light,
fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear,
zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball,
kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup,
fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut,
cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard,
cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush"""
PUBLISHED = """person with clothes,people,human | bicycle | car | motorbike | aeroplane | bus |
train | truck | boat | traffic light | fire hydrant | stop sign | parking meter | bench | bird avian
| cat | dog | horse | sheep | cow | elephant | bear | zebra | giraffe | backpack,bag |
umbrella,parasol | handbag,purse | necktie | suitcase | frisbee | skis | sknowboard | sports ball |
kite | baseball bat | glove | skateboard | surfboard | tennis racket | bottle | wine glass | cup |
fork | knife | dessertspoon | bowl | banana | apple | sandwich | orange | broccoli | carrot |
hot dog | pizza | donut | cake | chair seat | sofa | pottedplant | bed | diningtable | toilet |
tvmonitor screen | laptop | mouse | remote control | keyboard | cell phone | microwave | oven |
toaster | sink | refrigerator | book | clock | vase | scissors | teddy bear |
hairdrier,blowdrier | toothbrush"""


def listed(text: str, separator: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split(separator)]


def test_coco() -> None:
    names, published = listed(NAMES, ","), listed(PUBLISHED, "|")
    assert len(names) == len(published) == 80
    assert list(class_words(names, {}, published=True)) == published
    mended = class_words(names, {}, published=False)
    differing = [(a, b) for a, b in zip(mended, published, strict=True) if a != b]
    assert differing == [("snowboard", "sknowboard")]
    kept, dropped = background_words(BACKGROUND_WORDS, names)
    assert dropped == ("keyboard", "sign") and len(kept) == 23


def test_capitals_make_no_other_class() -> None:
    found = class_words(("Person", "TV", "Owl", "Bird"), {"Bird": "a hen"}, published=False)
    assert found == ("person with clothes,people,human", "tvmonitor screen", "Owl", "a hen")
