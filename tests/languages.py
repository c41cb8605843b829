"""Made-up sentences of many languages: real words of each, in random order, and words made of their letters."""

import random

WORDS = {
    "en": "the house doesn't stand (here) \"naïve\" café 2,000 U.S. it''s ``so'' co-operate £5",
    "de": "Straße möchte Größe über Häuser daß Öl fünf Mädchen 3,5 »schön«",
    "fr": "l'été français garçon où être naïf cœur déjà «oui» aujourd'hui",
    "tr": "İstanbul ışık çocuğun güzelliklerinden şeker öğretmenlerimizden DIŞARI Iğdır",
    "pl": "źdźbło łódź żółty ćma późno więcej dziękuję Święto",
    "vi": "Tiếng Việt rất đẹp những người không thể được Đà Nẵng",
    "cs": "příliš žluťoučký kůň úpěl ďábelské ódy Čech",
    "ru": "Мой ёж йогурт объявление прекрасная Россия её съел",
    "uk": "їжак ґанок п'ять Україна мої її ʼзʼїзд",
    "bg": "ѝ България българският език чудесно",
    "el": "Καλημέρα κόσμε ΟΔΟΣ ΣΟΦΟΣ Σίσυφος ΐσως μαΐου ΑΣ.",
    "he": "שלום עולם שָׁלוֹם ירושלים ספר הילדים צה״ל",
    "ar": "أحمد إلى المدرسة كِتَابٌ لا الله ﷲ مدرّسة ٣٤",
    "fa": "می‌خواهم کتاب‌ها فارسی است آب خانه ۱۲",
    "ur": "اردو زبان ہے میں کتاب",
    "hi": "हिन्दी भाषा में प्रकृति सुंदर क़लम ज़्यादा है। लड़का १२",
    "bn": "বাংলা ভাষা কো মৌলিক আমি যাচ্ছি ড়",
    "ta": "தமிழ் மொழி கொண்டு கௌரவம் அழகு ஸ்ரீ",
    "te": "తెలుగు భాష కొత్త చాలా ఇష్టం",
    "kn": "ಕನ್ನಡ ಭಾಷೆ ಕೋಟಿ ಕುಟ್ಟೋ ಕಲ್ಲು",
    "ml": "മലയാളം ഭാഷ കൊച്ചി പോയി ഞാൻ",
    "si": "සිංහල භාෂාව ශ්‍රී ලංකා කෝ",
    "am": "አማርኛ ቋንቋ ነው። ሰላም ኢትዮጵያ",
    "hy": "Հայերեն լեզու և Երևան եւ բարեւ",
    "ka": "ქართული ენა საქართველო მშვიდობა",
    "ko": "한국어는 아름답다 학교에서 읽었습니다 값이 ㅋㅋ",
    "ja": "パンダが 日本語です。 ｶﾞｷﾞ ガラス 東京々 っていた ～ ﾊﾟﾝ がぎぐ",
    "zh": "今天天气很好。 我们去学校， 中国（北京） ２０２４年 龍",
    "th": "กุ้งไม่ดี ภาษาไทย น้ำใจ ผู้ใหญ่ กำลัง เก่ง",
    "lo": "ພາສາລາວ ຂ້ອຍ ນ້ຳ ຄຳ ບໍ່",
    "km": "ភាសាខ្មែរ កម្ពុជា ខ្ញុំ ទៅ",
    "my": "မြန်မာစာ ကျွန်တော် သည် နိုင်ငံ",
    "bo": "བོད་སྐད་ བཀྲ་ཤིས་བདེ་ལེགས། རྒྱ་མཚོ",
    "yo": "Ọjọ́ ẹ̀kọ́ dára ọmọ ń lọ",
    "mn": "Монгол хэл өвөл үүл ᠮᠣᠩᠭᠣᠯ",
}


def sentences(language: str, count: int = 60, seed: int = 0) -> list[str]:
    """Of three to nine words each."""
    draw = random.Random(f"{language} {seed}")
    words = WORDS[language].split()
    letters = sorted({c for word in words for c in word if c.isalpha()})
    made = ["".join(draw.choice(letters) for _ in range(draw.randint(2, 9))) for _ in range(30)]
    pick = lambda: draw.choice(words if draw.random() < 0.5 else made)  # noqa: E731
    return [" ".join(pick() for _ in range(draw.randint(3, 9))) for _ in range(count)]
