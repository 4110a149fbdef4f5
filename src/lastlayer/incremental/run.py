"""Train one run over its tasks; killed anywhere, it goes on to the same result."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lastlayer._files import read_json
from lastlayer._random import derive_seed, seeded
from lastlayer.data import ClassTasks, Split, Splits, class_tasks, task_indices
from lastlayer.evaluation import TaskMatrix, confusion_counts, evaluate
from lastlayer.incremental.build import new_state
from lastlayer.incremental.config import IncrementalConfig
from lastlayer.incremental.state import PREDICTORS, LearnerState
from lastlayer.incremental.storage import load_state, save_state
from lastlayer.incremental.task import checkpoint_name, learn_task
from lastlayer.training.build import load_splits
from lastlayer.training.callbacks import Progress
from lastlayer.training.fit import ENCODER_FILE
from lastlayer.training.measuring import measured_part, summarize
from lastlayer.training.run_directory import TASKS_FOLDER, RunDirectory


class IncrementalRun(RunDirectory):
    """A run over tasks: beside a plain run's files, ``tasks/`` has what each task came to.

    - ``tasks/NNN/result.json``: the task's confusions, written last: the task is finished.
    - ``tasks/NNN/``: the learner after the newest finished task, see ``storage``; at the end it is
      moved to ``learner/``.
    """

    config_type = IncrementalConfig
    over_tasks = True
    resumed_with = "lastlayer learn"

    @property
    def learner(self) -> Path:
        """The folder of the finished run's learner."""
        return self.path / "learner"

    def task_folder(self, task: int) -> Path:
        """Return the folder of a task, counted from 0."""
        return self.path / TASKS_FOLDER / f"{task:03d}"

    def result_path(self, task: int) -> Path:
        """Return the file that tells that a task is finished."""
        return self.task_folder(task) / "result.json"

    def results(self) -> list[dict[str, Any]]:
        """Return what the finished tasks came to, in their order.

        Raises:
            ValueError: if a file is damaged; the message names it.
        """
        found: list[dict[str, Any]] = []
        while (path := self.result_path(len(found))).is_file():
            result = read_json(path)
            if not isinstance(result, dict) or "confusions" not in result:
                raise ValueError(f"{path} is corrupt: it has no entry 'confusions'")
            found.append(result)
        return found


def open_run(path: str | Path) -> RunDirectory:
    """Open a run for reading, over tasks or not.

    Args:
        path: the run directory.

    Returns:
        An :class:`IncrementalRun` for a run over tasks.

    Raises:
        FileNotFoundError: if there is no run at ``path``.
    """
    over_tasks = (Path(path) / TASKS_FOLDER).is_dir()
    return IncrementalRun.open(path) if over_tasks else RunDirectory.open(path)


def learn(
    config: IncrementalConfig,
    path: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    splits: Splits | None = None,
) -> IncrementalRun:
    """Learn the tasks of a configuration one after another, measured after each.

    Args:
        config: the complete description of the run.
        path: the run directory.
        resume: take up a run that was stopped, within a task or between two; a finished one is
            returned as it is.
        progress: called with the step over all tasks and the newest record.
        splits: the run's data if they are loaded already.

    Returns:
        The finished run.

    Raises:
        FileExistsError: if there is a run and ``resume`` is False.
        BlockingIOError: if another process trains this run.
        ValueError: if the configuration does not fit the data or what is there, or a file is
            damaged or of another class order.
        FloatingPointError: if the loss is not finite.

    Example:
        >>> import tempfile
        >>> changes = {"training": {"steps": 2}, "tasks": {"base": 6, "later": 2}}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = learn(IncrementalConfig().updated(changes), folder)
        ...     [len(result["class_counts"]) for result in run.results()]
        [6, 8, 10]
    """
    with IncrementalRun(path).locked():
        run = IncrementalRun.create(path, config, resume=resume)
        if not run.finished:
            _learn(config, run, load_splits(config) if splits is None else splits, progress)
    return run


def plan_tasks(config: IncrementalConfig, splits: Splits) -> ClassTasks:
    """Return which classes come when; the order depends on the configuration's seeds alone."""
    tasks = config.tasks
    seed = config.seed if tasks.order_seed is None else tasks.order_seed
    base = tasks.base
    if base is None:
        base, left = divmod(splits.num_classes, tasks.later + 1)
        if left:
            raise ValueError(
                f"{splits.num_classes} classes cannot be divided into {tasks.later + 1} equal "
                "tasks; set tasks.base (--base) or tasks.later (--later-tasks)"
            )
    order_seed = derive_seed(seed, "class order")
    try:
        return class_tasks(
            splits.num_classes, base=base, steps=tasks.later, order=tasks.order, seed=order_seed
        )
    except ValueError as error:
        raise ValueError(f"tasks.base={base}, tasks.later={tasks.later}: {error}") from error


def check_remembered(config: IncrementalConfig, num_classes: int) -> None:
    """Raise ``ValueError`` if the method predicts by exemplars and will have none of some class."""
    total = config.memory.total
    if config.predictor != "nearest-mean" or config.memory.everything or total is None:
        return
    if total < num_classes:
        raise ValueError(
            f"memory.total must be at least {num_classes}, an exemplar of every class, for "
            f'predictor="nearest-mean"; got {total}'
        )


def _learn(
    config: IncrementalConfig, run: IncrementalRun, splits: Splits, progress: Progress | None
) -> None:
    plan = plan_tasks(config, splits)
    check_remembered(config, splits.num_classes)
    measured = measured_part(config, splits)
    train = Split(splits.train.inputs, plan.to_rows(splits.train.target))
    test = Split(measured.inputs, plan.to_rows(measured.target))
    results = run.results()
    if results:
        folder = run.learner if run.learner.is_dir() else run.task_folder(len(results) - 1)
        state, _, _ = load_state(folder, config, class_order=plan.order)
    else:
        state = new_state(config)
    for task in range(len(results), plan.num_tasks):
        labels = list(plan.seen(task))
        rows = range(state.num_classes, len(labels))
        index = task_indices(train.target, rows)
        state, report = learn_task(
            state,
            Split(train.inputs[index], train.target[index]),
            len(rows),
            steps=config.task_steps(task),
            run=run,
            offset=sum(map(config.task_steps, range(task))),
            progress=progress,
        )
        with seeded(derive_seed(config.seed, "predictions", task)):
            result = asdict(report) | {"confusions": confusions(state, test)}
        results.append(result)
        save_state(state, run.task_folder(task), labels)
        run.write_json(str(run.result_path(task).relative_to(run.path)), result)
        _forget_before(run, task)
    _finish(config, run, splits, plan, state, test, results)


def _forget_before(run: IncrementalRun, task: int) -> None:
    """Remove what only going on from an earlier point needs."""
    (run.checkpoints / f"{checkpoint_name(task)}.ckpt").unlink(missing_ok=True)
    for before in range(task):
        for path in run.task_folder(before).iterdir():
            if path != run.result_path(before):
                path.unlink()


def _move_learner(run: IncrementalRun, task: int) -> None:
    """Put the learner after the last task into the run's own folder, if it is not there yet."""
    if run.learner.is_dir():
        return
    made = run.path / "learner.partial"
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(run.task_folder(task), made, ignore=shutil.ignore_patterns("result.json"))
    made.rename(run.learner)


def _finish(
    config: IncrementalConfig,
    run: IncrementalRun,
    splits: Splits,
    plan: ClassTasks,
    state: LearnerState,
    test: Split,
    results: list[dict[str, Any]],
) -> None:
    names = [splits.class_names[label] for label in plan.order]
    with seeded(derive_seed(config.seed, "predictions")):  # of heads that predict with masks
        log_prob = state.log_prob(state.trained.features_of(test.inputs))
    run.write_tensors(
        run.predictions_path,
        {"log_prob": log_prob, "scores": log_prob.clone(), "target": test.target},
    )
    if splits.extras:
        run.write_json(ENCODER_FILE, dict(splits.extras))
    _move_learner(run, plan.num_tasks - 1)
    measures = {
        "metrics": evaluate(log_prob, test.target).as_dict(),
        "class_names": names,
        "incremental": incremental_summary(results, list(plan.order), names, config.predictor),
    }
    seconds = sum(result["seconds"] for result in results)
    run.write_summary(summarize(config, splits, state.trained, measures, seconds))
    run.remove_checkpoints()
    _forget_before(run, plan.num_tasks)


def confusions(state: LearnerState, test: Split) -> dict[str, list[list[int]] | None]:
    """Return by predictor the (K, K) counts of true (rows) and predicted classes.

    Labels of ``test`` are rows, those not seen yet are left out. None for the nearest mean where a
    class has no exemplar.
    """
    seen = test.target < state.num_classes
    target = test.target[seen]
    features = state.trained.features_of(test.inputs[seen])
    found: dict[str, list[list[int]] | None] = {}
    for predictor in PREDICTORS:
        if predictor == "nearest-mean" and not state.has_exemplars():
            found[predictor] = None
            continue
        predicted = state.log_prob(features, predictor).argmax(dim=-1)
        counts = confusion_counts(predicted, target, state.num_classes)
        found[predictor] = counts.long().tolist()
    return found


def incremental_summary(
    results: list[dict[str, Any]], labels: list[int], class_names: list[str], predictor: str
) -> dict[str, Any]:
    """Return the summary's entry on the tasks; labels and names are in order of arrival."""
    sizes = [result["num_new"] for result in results]
    entry: dict[str, Any] = {
        "sizes": sizes,
        "class_order": labels,
        "class_names": class_names,
        "predictor": predictor,
        "alphas": [result["alpha"] for result in results],
        "alignments": [result["alignment"] for result in results],
    }
    for name in PREDICTORS:
        tables = [result["confusions"][name] for result in results]
        entry[name] = None
        if all(table is not None for table in tables):
            measures = TaskMatrix.from_confusions(tables, sizes).as_dict()
            entry[name] = {"confusions": tables, "measures": measures}
    return entry
