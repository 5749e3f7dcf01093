"""Measured predictions as tables: printed, metrics.json, metrics.csv."""

import csv
import json

import numpy as np

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


def summarise(scores, runs, interval):
    """{predictor: {metric: mean}} with the interval of the mean squared error and what `runs` counts.

    scores: {predictor: {metric: (V, H)}}; runs: {predictor: {kind: frames (V,)}}; interval(values (V,)) -> (low, high)
    or None. A mean is over what is defined, not NaN, and None if nothing is.
    """
    summary = {}
    for name, rows in scores.items():
        summary[name] = {key: defined_mean(values) for key, values in rows.items()}
        summary[name]["mse_interval"] = interval(rows["mse"].mean(1))
        for kind, lengths in runs[name].items():
            summary[name][kind] = {
                "median": float(np.median(lengths)),
                "p10_p90": [float(q) for q in np.percentile(lengths, [10, 90])],
                "survival": [float((lengths > t).mean()) for t in range(rows["mse"].shape[1])],
            }
    return summary


def defined_mean(values):
    """The mean of what is not NaN, or None."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None


def write_json(path, about, summary):
    with files.atomic_write(path) as partial:
        partial.write_text(json.dumps({"about": about, "predictors": summary}, indent=1, allow_nan=False))


def write_csv(path, scores):
    """A line for each predictor and frame ahead; what is not defined is left empty."""
    columns = [key for key in next(iter(scores.values())) if key != "primed"]
    with files.atomic_write(path) as partial, open(partial, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["predictor", "frame", *columns])
        for name, rows in scores.items():
            for t in range(rows["mse"].shape[1]):
                means = [defined_mean(rows[key][:, t]) for key in columns]
                writer.writerow([name, t + 1, *(cell(mean, ".6g") for mean in means)])


def print_table(summary):
    """Print the summary in Markdown."""
    first = next(iter(summary.values()))
    kinds = [kind for kind in ("coherent", "tracked") if kind in first]
    header = ["predictor", "MSE (95 %)", *COLUMNS, *(f"{kind} frames" for kind in kinds)]
    print("|", " | ".join(header), "|")
    print("|---" * len(header) + "|")
    for name, measures in summary.items():
        mse = cell(measures["mse"], ".1f")
        if measures["mse_interval"]:
            mse += " ({:.1f} to {:.1f})".format(*measures["mse_interval"])
        cells = [cell(measures.get(key), form) for key, form in COLUMNS.values()]
        medians = [cell(measures[kind]["median"], "g") for kind in kinds]
        print("|", " | ".join([name.replace("|", "\\|"), mse, *cells, *medians]), "|")


def cell(number, form):
    """A number as text, nothing if it is None."""
    return "" if number is None else format(number, form)
