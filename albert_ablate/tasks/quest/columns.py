"""The columns of Google QUEST's files, in their order, and the sets of targets.

Origin: the header of the competition's ``train.csv`` (Kaggle, google-quest-challenge).
"""

from collections.abc import Mapping
from typing import Literal

#: Columns before the targets; test.csv has these alone.
INPUTS = (
    "qa_id", "question_title", "question_body", "question_user_name", "question_user_page", "answer",
    "answer_user_name", "answer_user_page", "url", "category", "host",
)  # fmt: skip
#: Targets of the question.
QUESTION = (
    "question_asker_intent_understanding", "question_body_critical", "question_conversational",
    "question_expect_short_answer", "question_fact_seeking", "question_has_commonly_accepted_answer",
    "question_interestingness_others", "question_interestingness_self", "question_multi_intent",
    "question_not_really_a_question", "question_opinion_seeking", "question_type_choice", "question_type_compare",
    "question_type_consequence", "question_type_definition", "question_type_entity", "question_type_instructions",
    "question_type_procedure", "question_type_reason_explanation", "question_type_spelling", "question_well_written",
)  # fmt: skip
#: Targets of the answer.
ANSWER = (
    "answer_helpful", "answer_level_of_information", "answer_plausible", "answer_relevance", "answer_satisfaction",
    "answer_type_instructions", "answer_type_procedure", "answer_type_reason_explanation", "answer_well_written",
)  # fmt: skip
#: The header of train.csv.
HEADER = (*INPUTS, *QUESTION, *ANSWER)

#: Value of ``tasks.*.targets`` -> its columns, in the order of the file. The paper's code deletes one of the 21.
TARGETS: Mapping[Literal["paper", "all", "question"], tuple[str, ...]] = {
    "paper": tuple(name for name in QUESTION if name != "question_body_critical"),
    "question": QUESTION,
    "all": (*QUESTION, *ANSWER),
}

#: Targets whose raters answered on three levels: 1/3, 2/3 or 1. Read from 50 rows of the file.
THREE_LEVELS = frozenset((
    "question_asker_intent_understanding", "question_body_critical", "question_interestingness_others",
    "question_interestingness_self", "question_well_written", "answer_helpful", "answer_level_of_information",
    "answer_plausible", "answer_relevance", "answer_well_written",
))  # fmt: skip
#: The target with five levels, from 1/5 to 1.
FIVE_LEVELS = frozenset(("answer_satisfaction",))
#: The targets whose predictions the winners of the competition moved to the grid of the training targets.
FIRST_PLACE = frozenset((
    "question_conversational", "question_type_compare", "question_type_definition", "question_type_entity",
    "question_has_commonly_accepted_answer", "question_type_consequence", "question_type_spelling",
))  # fmt: skip
