"""Settings that contradict each other; every message has field, value and remedy."""

from itertools import pairwise
from pathlib import Path

from albert_ablate.axes import AXES, SHARE, Part, plain
from albert_ablate.command_line import command_name
from albert_ablate.config.identity import BEFORE
from albert_ablate.config.init import init_contradictions
from albert_ablate.config.knowledge import knowledge_contradictions
from albert_ablate.config.schema import BudgetConfig, DataConfig, PathsConfig, RunConfig
from albert_ablate.config.tasks import AUGMENT, DISTIL, FineTuneConfig, QuestConfig, TaskConfig, TextConfig
from albert_ablate.model.block_pattern import FLEX, GATHER, LEAST_TILE, tile_of


def contradictions(c: RunConfig) -> list[str]:
    """One message for each contradiction; empty for valid settings."""
    problems = [sentence for axis in AXES for sentence in axis.problems(c)]
    if not c.block.type.has_bottlenecks and c.model.hidden % c.model.heads:
        problems.append(
            f"model.heads={c.model.heads} does not divide model.hidden={c.model.hidden}: every head has the same "
            f"width. Try model.heads={_nearest_divisor(c.model.hidden, c.model.heads)}."
        )
    if c.pairs.max_length > c.model.max_positions:
        problems.append(
            f"pairs.max_length={c.pairs.max_length} exceeds model.max_positions={c.model.max_positions}: later tokens "
            "would have no position. Shorten the sequences or raise model.max_positions."
        )
    problems += _causal_contradictions(c)
    problems += _joined_contradictions(c)
    if c.attention.name.in_blocks and c.knowledge.as_branches:
        problems.append(
            f"knowledge={c.knowledge.name} with attention={c.attention.name}: which positions see a branch is said for "
            "each pair of positions, and blocks have no pairs. Use knowledge=text, or attention=full."
        )
    if c.model.lm_head == "extended" and c.embed.size > c.model.hidden:
        problems.append(
            f"model.lm_head=extended with embed.size={c.embed.size} and model.hidden={c.model.hidden}: the head widens "
            "the word table to model.hidden. Use model.lm_head=transform, or a smaller embed."
        )
    narrowed = c.method.name.corrupts and c.method.generator == "learned" and c.method.generator_width != 1
    if c.model.table_width == "hidden" and narrowed and c.method.tie == "embeddings":
        problems.append(
            f"model.table_width=hidden with method={c.method.name} and method.generator_width="
            f"{c.method.generator_width:g}: position tables of different widths cannot be tied. Use "
            "model.table_width=embedding, or method.tie=none."
        )
    if c.model.type_vocab < 2:
        problems.append(f"model.type_vocab={c.model.type_vocab}: a pair has two segments. Set it to 2 or more.")
    if c.masking.draw != "smoothed" and c.masking.smoothing != BEFORE["masking.smoothing"]:
        problems.append(
            f"masking.smoothing={c.masking.smoothing:g}: no effect with masking.draw={c.masking.draw}. "
            "Use masking.draw=smoothed, or leave it."
        )
    if c.budget.warmup_steps >= c.budget.steps:
        problems.append(
            f"budget.warmup_steps={c.budget.warmup_steps} leaves nothing of budget.steps={c.budget.steps}. "
            "Shorten the warm-up."
        )
    problems += _budget_contradictions(c.budget)
    depths = (*c.warm_start.layers, c.model.layers)
    if any(b <= a for a, b in pairwise(depths)):
        problems.append(
            f"warm_start.layers={list(c.warm_start.layers)}: depths must grow and stay below "
            f"model.layers={c.model.layers}, since each network starts from the one before."
        )
    problems += _warm_start_contradictions(c)
    starts = {"warm_start.layers": list(c.warm_start.layers), "warm_start.length": c.warm_start.length}
    problems += init_contradictions(c.init, {name: value for name, value in starts.items() if value})
    if c.batch.micro_size > c.batch.size:
        problems.append(
            f"batch.micro_size={c.batch.micro_size} exceeds batch.size={c.batch.size}. "
            f"Use batch.micro_size={c.batch.size}."
        )
    problems += _kernel_contradictions(c)
    problems += _data_contradictions(c.data)
    problems += _task_contradictions(c.tasks, c.model.max_positions)
    problems += _layer_decay_contradictions(c)
    problems += _unread_contradictions(c)
    problems += _distillation_contradictions(c.task, c.tasks)
    problems += knowledge_contradictions(c.knowledge, c.task, c.tasks, not c.method.name.predicts_next)
    problems += _path_contradictions(c.paths)
    if len(set(c.task.seeds)) < len(c.task.seeds):
        problems.append(f"task.seeds={list(c.task.seeds)}: a seed is listed twice. Name each once.")
    return problems


def _kernel_contradictions(c: RunConfig) -> list[str]:
    """What FlexAttention does not compute."""
    if c.runtime.block_kernel != FLEX or not c.attention.name.in_blocks:
        return []
    problems, flex = [], f"runtime.block_kernel={FLEX}"
    if c.attention.plan != "seed":
        problems.append(
            f"attention.plan={c.attention.plan} with {flex}: the plan may choose a block twice, which this kernel "
            f"counts once. Use runtime.block_kernel={GATHER}, or attention.plan=seed."
        )
    if tile_of(c.attention.block) < LEAST_TILE:
        problems.append(
            f"attention.block={c.attention.block} with {flex}: a block must be a multiple of {LEAST_TILE} tokens. "
            f"Use runtime.block_kernel={GATHER}, or attention.block={LEAST_TILE}."
        )
    if c.model.attention_dropout:
        problems.append(
            f"model.attention_dropout={c.model.attention_dropout:g} with {flex}: this kernel drops no probabilities. "
            f"Use runtime.block_kernel={GATHER}, or model.attention_dropout=0."
        )
    return problems


def _causal_contradictions(c: RunConfig) -> list[str]:
    """Settings that a model which predicts the next piece cannot have."""
    if not c.method.name.predicts_next:
        return []
    problems = []
    if c.attention.name.in_blocks:
        problems.append(
            f"attention={c.attention.name} with method={c.method.name}: it sees both sides of a position, which "
            "this method may not. Use attention=full, which then ends at the position."
        )
    if c.objective.name.trains_sentences:
        problems.append(
            f"objective={c.objective.name}: with method={c.method.name} the sentence head would read [CLS], which sees "
            "only itself. Use objective=none."
        )
    if c.method.pooler != "trained":
        problems.append(
            f"method.pooler={c.method.pooler}: with method={c.method.name} no loss trains a pooler. "
            "Leave it at trained."
        )
    pooled = [name for name, task in c.fine_tuned.items() if task.pools]
    if c.task.pool == "first" and pooled:
        problems.append(
            f"task.pool=first with method={c.method.name} and task={','.join(pooled)}: [CLS] sees only itself, so its "
            "state is the same for every text. Use task.pool=last or task.pool=mean."
        )
    return problems


def _warm_start_contradictions(c: RunConfig) -> list[str]:
    """What a start from a run on shorter sequences does not allow."""
    length, longest = c.warm_start.length, c.pairs.max_length
    if length is None:
        return []
    problems = []
    if length >= longest or longest % length:
        problems.append(
            f"warm_start.length={length}: pairs.max_length={longest} must be a multiple of it, so that both runs have "
            f"equally many tokens in a batch. Try warm_start.length={longest // 2 if longest % 2 == 0 else longest}."
        )
    if c.warm_start.layers:
        problems.append(
            f"warm_start.length={length} with warm_start.layers={list(c.warm_start.layers)}: a run starts from one "
            "other run. Leave one of them empty."
        )
    return problems


def _joined_contradictions(c: RunConfig) -> list[str]:
    """What sequences of joined documents do not allow."""
    if not c.pairs.join_documents:
        return []
    problems = []
    if c.objective.name.trains_sentences:
        problems.append(
            f"pairs.join_documents=true with objective={c.objective.name}: joined documents have no second segment to "
            "judge. Use objective=none."
        )
    if c.method.name.predicts_next:
        problems.append(
            f"pairs.join_documents=true: no effect with method={c.method.name}. Use method.blocks=packed, which joins "
            "documents too."
        )
    if c.method.name.corrupts:
        problems.append(
            f"pairs.join_documents=true with method={c.method.name}: replaced tokens are drawn for pairs only. "
            "Leave it at false."
        )
    if c.data.planted is not None:
        problems.append(
            f"pairs.join_documents=true with data={c.data.name}: the best achievable scores are known for pairs only. "
            "Leave it at false."
        )
    return problems


def _budget_contradictions(budget: BudgetConfig) -> list[str]:
    if budget.lookups != "free" and budget.unit != "flops":
        return [f"budget.lookups={budget.lookups}: no effect with budget={budget.unit}. Use budget=flops, or leave it."]
    amounts = {"tokens": budget.tokens, "flops": budget.flops, "seconds": budget.seconds}
    if budget.unit != "steps" and amounts.pop(budget.unit) is None:
        return [f"budget.{budget.unit} is empty: budget={budget.unit} needs the amount. Give budget.{budget.unit}=..."]
    return [
        f"budget.{unit}={amount}: no effect with budget={budget.unit}. Use budget={unit} to train for that many {unit}."
        for unit, amount in amounts.items()
        if amount is not None
    ]


def _data_contradictions(data: DataConfig) -> list[str]:
    if data.source == "files" and data.path is None:
        return [f"data.path is empty: data={data.name} reads files. Give data.path=FILE, a folder or a quoted glob."]
    if data.source == "packed" and data.path is None:
        return [f"data.path is empty: data={data.name} reads a file that `{command_name('pack')}` wrote. Name it."]
    if data.source == "packed" and data.validation_fraction == 1:
        return ["data.validation_fraction=1: a packed corpus is divided already. Use data=text to divide a text anew."]
    unused: dict[str, str | int | None] = {} if data.source == "packed" else {"data.path": data.path}
    unused |= {"data.validation_path": data.validation_path, "data.documents_of": data.documents_of}
    if data.source != "files" and any(unused.values()):
        named = ", ".join(f"{field}={value}" for field, value in unused.items() if value)
        return [f"{named}: no effect with data={data.name}. Use data=text to read files."]
    if data.source != "planted" and data.planted is not None:
        return [f"data.planted: no effect with data={data.name}. Use data=planted for text with a known structure."]
    if data.source == "planted":
        return _planted_contradictions(data)
    if data.source == "hub" and not data.hub:
        return [f"data.hub is empty: data={data.name} reads Hugging Face datasets. Name at least one."]
    return []


def _planted_contradictions(data: DataConfig) -> list[str]:
    planted = data.planted
    if planted is None:
        return [f"data.planted is empty: data={data.name} draws its text from it. Use data=planted as it is in conf/."]
    size, rest = divmod(planted.vocabulary, planted.topics)
    if rest or size < 2:
        return [
            f"data.planted.vocabulary={planted.vocabulary} with data.planted.topics={planted.topics}: every topic has "
            f"as many words, two or more. Try data.planted.vocabulary={max(size, 2) * planted.topics}."
        ]
    if planted.markers > planted.sentences:
        return [
            f"data.planted.markers={planted.markers} exceeds data.planted.sentences={planted.sentences}: some would "
            f"mark no place. Use data.planted.markers={planted.sentences} or fewer."
        ]
    return []


def _task_contradictions(tasks: dict[str, TaskConfig], positions: int) -> list[str]:
    """Contradictions in the settings of tasks, whose names choose readers and result folders."""
    problems = [
        f"tasks.{key}.name={task.name!r}: a task must have the name of its settings. Leave it at {key}."
        for key, task in tasks.items()
        if task.name != key
    ]
    problems += [
        f"tasks.{key}.max_length={task.max_length} exceeds model.max_positions={positions}: later tokens would have no "
        f"position. Set tasks.{key}.max_length={positions} or less."
        for key, task in tasks.items()
        if task.max_length is not None and task.max_length > positions
    ]
    problems += [problem for task in tasks.values() for problem in _class_contradictions(task)]
    return problems + [problem for task in tasks.values() for problem in _fold_contradictions(task)]


def _fold_contradictions(task: TaskConfig) -> list[str]:
    if not isinstance(task, QuestConfig):
        return []
    where, problems = f"tasks.{task.name}", []
    if task.fold >= task.folds:
        problems.append(
            f"{where}.fold={task.fold}: {where}.folds={task.folds} are numbered from 0. "
            f"Use {where}.fold={task.folds - 1} or less."
        )
    files = {"train_file": task.train_file, "dev_file": task.dev_file}
    problems += [
        f"{where}.{field}={file}: no effect with {where}.source=generated. Use {where}.source=file, or leave it."
        for field, file in files.items()
        if file is not None and task.source == "generated"
    ]
    return problems


def _unread_contradictions(c: RunConfig) -> list[str]:
    """Settings of a distillation without a teacher, and of an augmentation without copies."""
    groups = [
        ("distil", c.task.distil, DISTIL, c.task.distil.teacher is None, "task.distil.teacher=RUN"),
        ("augment", c.task.augment, AUGMENT, c.task.augment.copies == 0, "task.augment.copies=20"),
    ]
    return [
        f"task.{name}.{key}={plain(getattr(group, key))}: no effect without {remedy.partition('=')[0]}. "
        f"Give {remedy}, or leave it."
        for name, group, defaults, unread, remedy in groups
        if unread
        for key, default in defaults.items()
        if getattr(group, key) != default
    ]


def _layer_decay_contradictions(c: RunConfig) -> list[str]:
    """A decay over layers where a layer has no depth of its own, and a rule without a decay."""
    decay, rule = c.task.optimizer.layer_decay, c.task.optimizer.layer_decay_rule
    if decay is None:
        if rule == "released":
            return []
        return [
            f"task.optimizer.layer_decay_rule={rule}: no effect without a decay. Give task.optimizer.layer_decay=0.8."
        ]
    if SHARE.problems(c):
        return []
    repeated = [part.value for part in Part if c.architecture().sharing.repeats(part)]
    if not repeated:
        return []
    return [
        f"task.optimizer.layer_decay={decay} with share={c.share.strategy}: several layers share one block "
        f"({' and '.join(repeated)}), which has no single depth. Set it to null, in all arms that are compared, or use "
        "share=none."
    ]


def _distillation_contradictions(common: FineTuneConfig, tasks: dict[str, TaskConfig]) -> list[str]:
    """A teacher without a loss, or tasks whose form does not allow augmentation or soft targets."""
    problems, distil = [], common.distil
    unread = [name for name, task in tasks.items() if not task.of_texts]
    if common.augment.copies and unread:
        problems.append(
            f"task.augment.copies={common.augment.copies} with task={','.join(unread)}: only the words of single texts "
            "and of pairs of texts are replaced. Set it to 0, or leave these tasks out."
        )
    if distil.teacher is None:
        return problems
    spans = [name for name, task in tasks.items() if not task.pools]
    if distil.predictions == "soft" and spans:
        problems.append(
            f"task.distil.predictions=soft with task={','.join(spans)}: there are soft targets for classes, labels and "
            "choices, not for answers in a text. Use task.distil.predictions=gold."
        )
    weights = (distil.embedding_weight, distil.hidden_weight, distil.attention_weight)
    if distil.epochs and not any(weights):
        problems.append(
            f"task.distil.epochs={distil.epochs:g}: no loss is left for the first stage, as all of its weights are 0. "
            "Set task.distil.epochs=0."
        )
    if not distil.epochs and distil.predictions == "gold":
        problems.append(
            "task.distil.predictions=gold with task.distil.epochs=0: nothing is learned from the teacher. Leave "
            "task.distil.teacher empty."
        )
    if distil.cache and distil.padding == "released":
        problems.append(
            "task.distil.cache=true with task.distil.padding=released: padding, whose length depends on the batch, "
            "would have to be kept too. Use task.distil.padding=left_out."
        )
    return problems


def _class_contradictions(task: TaskConfig) -> list[str]:
    """Settings about classes in a task without classes, and incomplete settings of classes."""
    if not isinstance(task, TextConfig):
        return []
    classes = task.kind == "text_classification" and len(task.target_columns) == 1
    needs = {"class_weights": (task.class_weights, "none"), "dev_split": (task.dev_split, "text")}
    requirement = "classes: text_classification with one column of target_columns"
    problems = [
        f"tasks.{task.name}.{field}={value}: it needs {requirement}. Leave it at {default}."
        for field, (value, default) in needs.items()
        if value != default and not classes
    ]
    if task.choose_by is not None and task.kind == "text_regression":
        problems.append(f"tasks.{task.name}.choose_by={task.choose_by}: numbers have no F1. Leave it empty.")
    if task.dev_split != "text" and task.dev_file is not None:
        problems.append(f"tasks.{task.name}.dev_split={task.dev_split}: no effect with dev_file={task.dev_file}.")
    if isinstance(task.class_weights, tuple) and classes and task.labels is None:
        problems.append(
            f"tasks.{task.name}.class_weights={list(task.class_weights)}: which weight is whose? Name the classes in "
            f"this order with tasks.{task.name}.labels."
        )
    return problems


def _path_contradictions(paths: PathsConfig) -> list[str]:
    problems = []
    for field, name in (("paths.runs", paths.runs), ("paths.cache", paths.cache)):
        path = Path(name)
        existing = next((candidate for candidate in (path, *path.parents) if candidate.exists()), path)
        if existing.exists() and not existing.is_dir():
            problems.append(f"{field}={name}: {existing} is a file. Give a folder, which need not exist yet.")
    return problems


def _nearest_divisor(number: int, wanted: int) -> int:
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: abs(d - wanted))
