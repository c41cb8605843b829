"""Scripts without spaces between words: one list for texts, masking and tasks."""

#: Han, kana, bopomofo, Yi, Tangut, Nushu and Khitan; Thai, Lao, Tibetan, Burmese, Khmer, Balinese, Javanese, Tai and
#: Phags-pa; cuneiform and hieroglyphs. Letters, marks and digits, as content of a regular expression's character class.
UNSPACED = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303b\u3041-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uf900-\ufaff\uff66-\uff9f\U00016fe0-\U0001b2ff\U00020000-\U0003ffff"
    "\u0e01-\u0e5b\u0e81-\u0edf\u0f00-\u0fff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf"
    "\u1b00-\u1b7f\ua840-\ua877\ua980-\ua9df\uaa80-\uaadf\U00012000-\U0001254f\U00013000-\U0001345f"
)
