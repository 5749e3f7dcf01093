"""Measured predictions as tables: printed, metrics.json, metrics.csv."""

import csv
import json

import numpy as np
import torch

from models.codec import unit_scale
from runtime import files

COLUMNS = {  # of the printed table: title, measure, format
    "MAE": ("mae", ".1f"),
    "PSNR": ("psnr", ".2f"),
    "SSIM": ("ssim", ".3f"),
    "SSIM at range 2": ("ssim_openstl", ".3f"),
    "BCE": ("bce", ".1f"),
    "sharpness": ("sharpness", ".2f"),
    "mass": ("mass", ".2f"),
    "lost": ("lost", ".1%"),
    "primed MSE": ("primed", ".1f"),
}
ON_REQUEST = {  # these columns are there if they were measured
    "LPIPS": ("lpips", ".3f"),
    "FVD": ("fvd", ".1f"),
}
MEAN = "mean over films"
REPORTED = 10  # free-running frames whose error `print_errors` prints


def summarise(scores, runs, interval):
    """Means over videos and frames: {predictor: {metric: mean}}, with what `runs` counts.

    scores: {predictor: {metric: (V, H)}}; runs: {predictor: {kind: frames (V,)}}; interval(values
    (V,)) -> (low, high) or None, of the mean squared error. A mean is over the defined values,
    those that are not NaN; it is None if there are none.
    """
    summary = {}
    for name, measured in scores.items():
        row = {metric: defined_mean(values) for metric, values in measured.items()}
        row["mse_interval"] = interval(measured["mse"].mean(1))
        horizon = measured["mse"].shape[1]
        for kind, lengths in runs[name].items():
            row[kind] = {
                "median": float(np.median(lengths)),
                "p10_p90": [float(q) for q in np.percentile(lengths, [10, 90])],
                "survival": [float((lengths > t).mean()) for t in range(horizon)],
            }
        summary[name] = row
    return summary


def defined_mean(values):
    """The mean of the values that are not NaN, or None."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None


def summarise_films(scores, films):
    """Squared errors by film: {film: {"windows": count, "mse": {predictor: (H,)}}}.

    The last entry, MEAN, is their mean, in which each film weighs the same. With fewer than two
    films there are no entries. scores: {predictor: {metric: (V, H)}}; films: the name of each
    video's film, (V,), or None.
    """
    if films is None or len(set(films)) < 2:
        return {}
    by_film = {}
    for film in dict.fromkeys(films.tolist()):
        chosen = films == film  # (V,)
        errors = {name: measured["mse"][chosen].mean(0) for name, measured in scores.items()}
        by_film[film] = {"windows": int(chosen.sum()), "mse": errors}
    means = {}
    for name in scores:
        means[name] = np.mean([row["mse"][name] for row in by_film.values()], axis=0)
    return by_film | {MEAN: {"windows": len(films), "mse": means}}


def write_json(path, attributes, summary, by_film):
    """by_film: as of `summarise_films`; it is left out if it is empty."""
    content = {"about": attributes, "predictors": summary}
    if by_film:
        content["predictors"] = {
            name: row | {"mse_by_horizon_mean_over_films": by_film[MEAN]["mse"][name].tolist()}
            for name, row in summary.items()
        }
        content["films"] = {
            film: {
                "windows": row["windows"],
                "mse": {name: float(errors.mean()) for name, errors in row["mse"].items()},
            }
            for film, row in by_film.items()
        }
    with files.atomic_write(path) as tmp:
        tmp.write_text(json.dumps(content, indent=1, allow_nan=False))


def write_csv(path, scores, by_film):
    """A line for each predictor and frame ahead; what is not defined is left empty.

    by_film: as of `summarise_films`; each film is a column.
    """
    columns = [metric for metric in next(iter(scores.values())) if metric != "primed"]
    with files.atomic_write(path) as tmp, open(tmp, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["predictor", "frame", *columns, *(f"mse, {film}" for film in by_film)])
        for name, measured in scores.items():
            for t in range(measured["mse"].shape[1]):
                means = [defined_mean(measured[metric][:, t]) for metric in columns]
                means += [row["mse"][name][t] for row in by_film.values()]
                writer.writerow([name, t + 1, *(cell(mean, ".6g") for mean in means)])


def print_table(summary):
    """Print the summary in Markdown."""
    first = next(iter(summary.values()))
    kinds = [kind for kind in ("coherent", "tracked") if kind in first]
    requested = {title: column for title, column in ON_REQUEST.items() if column[0] in first}
    columns = COLUMNS | requested
    header = ["predictor", "MSE (95 %)", *columns, *(f"{kind} frames" for kind in kinds)]
    print_row(header)
    print("|---" * len(header) + "|")
    for name, row in summary.items():
        mse = cell(row["mse"], ".1f")
        if row["mse_interval"]:
            low, high = row["mse_interval"]
            mse += f" ({low:.1f} to {high:.1f})"
        measures = [cell(row.get(metric), form) for metric, form in columns.values()]
        medians = [cell(row[kind]["median"], "g") for kind in kinds]
        print_row([name, mse, *measures, *medians])


def print_films(by_film, predictors):
    """Print the mean squared errors of some predictors by film, in Markdown."""
    header = ["film", "windows", *predictors]
    print_row(header)
    print("|---" * len(header) + "|")
    for film, row in by_film.items():
        errors = [cell(row["mse"][name].mean(), ".1f") for name in predictors]
        print_row([film, str(row["windows"]), *errors])


def print_row(cells):
    print("|", " | ".join(text.replace("|", "\\|") for text in cells), "|")


def cell(number, form):
    """A number as text; None as nothing."""
    return "" if number is None else format(number, form)


def print_errors(truth, context, predicted, reconstructed):
    """Print squared errors of what was predicted, of the codec, and of a copy of the last frame."""
    length = context.shape[1]
    horizon = predicted.shape[1] - length
    primed = [video[1:length] for video in truth]
    free = [video[length:][:REPORTED] for video in truth]
    copy = unit_scale(context[:, -1:]).expand(-1, horizon, -1, -1, -1)  # (V, horizon, C, H, W)
    print_error("reconstruction by the codec", reconstructed, context)
    print_error("fed the truth, one step ahead", predicted[:, 1:length], primed)
    name = f"first {min(REPORTED, horizon)} free-running frames"
    print_error(name, predicted[:, length:], free)
    print_error("last true frame copied instead", copy, free)


def print_error(name, predicted, truth):
    """Print the squared error summed over a frame, a mean over the frames that have a true one.

    predicted: (V, T, C, H, W) in [0, 1]; truth: uint8 videos, which may be shorter.
    """
    errors = []
    for video, true in zip(predicted, truth, strict=True):
        difference = video[: len(true)] - unit_scale(true)
        errors.append(difference.square().sum((1, 2, 3)))
    errors = torch.cat(errors)
    print(f"  {name:34}" + (f"{errors.mean():7.1f}" if len(errors) else "  no frames to compare"))
