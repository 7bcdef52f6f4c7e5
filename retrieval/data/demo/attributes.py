"""Which of CelebA's attributes a drawn photo shows, told from the numbers that it is drawn from."""

from __future__ import annotations

from retrieval.data.demo.people import Person, Shot


def attributes_of(person: Person, shot: Shot) -> dict[str, bool]:
    """Which of CelebA's attributes the drawing shows; what is not named is false (`Attractive` always).

    Hidden things are false, as in CelebA: no hair colour under a hat.
    """
    wears = shot.wears
    return {
        **_facial_attributes(person),
        **({} if "hat" in wears else _hair_attributes(person, bangs="bangs" in wears)),
        "5_o_Clock_Shadow": shot.stubble > 0,
        "Blurry": shot.blur > 1.5,
        "Eyeglasses": "glasses" in wears,
        "Heavy_Makeup": "makeup" in wears,
        "High_Cheekbones": person.cheek + 0.35 * max(shot.smile, 0) > 0.8,
        "Mouth_Slightly_Open": shot.mouth_open > 0,
        "Narrow_Eyes": person.eye_open * shot.lids < 0.07,
        "No_Beard": person.beard == "none" and shot.stubble == 0,
        "Rosy_Cheeks": "makeup" in wears,
        "Smiling": shot.smile > 0.4,
        "Wearing_Earrings": "earrings" in wears,
        "Wearing_Hat": "hat" in wears,
        "Wearing_Lipstick": bool({"lipstick", "makeup"} & wears),
        "Wearing_Necklace": "necklace" in wears,
        "Wearing_Necktie": "necktie" in wears,
    }


def _facial_attributes(person: Person) -> dict[str, bool]:
    return {
        "Arched_Eyebrows": person.brow_arch > 0.07,
        "Bags_Under_Eyes": person.bags > 0.5,
        "Big_Lips": person.lip_upper + person.lip_lower > 0.165,
        "Big_Nose": person.nose_width > 0.215,
        "Bushy_Eyebrows": person.brow_thick > 0.065,
        "Chubby": person.chubby > 0.6,
        "Double_Chin": person.chubby > 0.8,
        "Goatee": person.beard in ("goatee", "full"),
        "Male": person.male,
        "Mustache": person.beard in ("mustache", "full"),
        "Oval_Face": person.chin / person.width > 1.46 and person.jaw < 2.6,
        "Pale_Skin": person.pale,
        "Pointy_Nose": person.nose_width < 0.165,
        "Sideburns": person.sideburns or person.beard == "full",
        "Young": person.young,
    }


def _hair_attributes(person: Person, *, bangs: bool) -> dict[str, bool]:
    if person.bald:
        return {"Bald": True}
    long = person.hair_length >= 0.5
    return {
        "Bangs": bangs,
        "Receding_Hairline": person.receding > 0 and not bangs,
        "Straight_Hair": long and person.wave == 0,
        "Wavy_Hair": long and person.wave > 0,
        **({person.hair_name: True} if person.hair_name else {}),
    }
