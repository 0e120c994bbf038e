"""The gate's own sentences that quote or explain: what may stand behind a colon, in parentheses or in quotation marks.

Holds no sentence into which a prompt, an answer, a target, or a message of foreign code could get; `own_words` keeps
what is written here whole, and cuts the others.

A hole in braces says what may fill it; `a|b` is a choice.  A sentence of the gate that is not here is cut after its
first colon, which is safe and hides what it advises: tests name those that ordinary runs write.
"""

from __future__ import annotations

_WORD = r"[^\s'\"`(){}\[\]<>;,:]{1,120}"
_VALUE = r"(?:'[^'\n]{0,80}'|\"[^\"\n]{0,80}\"|\[[^\]\n'\"]{0,80}\]|[\w.,+-]{1,80})"
_CHANGE = rf"\w{{1,40}} is {_VALUE} instead of {_VALUE}"

HOLES = {
    "n": r"[−+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?: ?(?:%|pp|×|x|[KMG]i?B|nats|tok/s|s|ms|J)(?!\w))?",
    "role": r"(?:baseline|candidate)",
    "word": _WORD,  # of a checkpoint, a policy or a library: the sentence around it says of which
    "words": rf"{_WORD}(?:,? {_WORD}){{0,15}}",
    "value": _VALUE,  # of a checkpoint's settings, or the name of a metric
    "changes": rf"{_CHANGE}(?:; {_CHANGE}){{0,9}}",
    "given": r"(?:, which was given \d+% of the device)?",
    "time": r"[\dT:.+Z-]{10,40}",
    "group": r"[^\s'\"`(){}\[\];]{1,60}",  # a shape or a load of a profile
    "url": r"https?://[^\s'\"`()]{1,200}",
    "names": r"[^\n]{1,400}?",  # each of them known to the record
    "reason": r"[^\n]{1,1000}?",  # in the gate's own words by itself
    "own": r"[^\n]{1,1000}?",  # one of these sentences: where foreign code may speak as well
}
"""What fills a hole.  The last three are looked at again: see `own_words`."""

CHECKPOINTS = (
    "not loaded with the {role}, because nothing needs it: {words}",
    "trust_remote_code: the {role}'s own code is run, as the policy asks ({words})",
    "a GGUF file names its architecture in its own way: it was not compared",
    "the candidate's tensors and load settings are the baseline's: an A/A comparison",
    "{words} was not held against the baseline: nothing was hashed",
    "only the key/value cache is quantized: all weights are stored in full precision",
    "only the {role} has layers that draft further tokens: they score nothing and were left out of the counts",
    "quantized when it is loaded, as {word}: its files are not",
    "quantized when it is loaded, by the engine: {words}",
    "parameters were not counted: how {word} packs them is not known here ({word} holds {word} in {value})",
    "declared as quantized, but stored in full precision: {words}",
    "its name declares {word}, but its quantized weights take {n} bits each ({words})",
    "{words} says that the candidate was made from {value}, the baseline is {value}",
    "config.json: {word} is {value} instead of {value}",
    "vocab_size is {n} instead of {n}: rows beyond the {n} tokens are padding, but take part in the softmax",
    "only the {role}'s config.json says {word} ({value})",
    "the candidate ends its answers at other tokens: eos_token_id is {words} instead of {words} "
    "(generation_config.json): generated answers may end elsewhere, whatever its weights are",
    "generation_config.json: {changes}: the gate decodes as the policy says, a server may not",
    "only the {role}'s files name its {word} ({value})",
    "the candidate's pad_token is {value}, the baseline's {value}",
    "the candidate's added token {value} is matched otherwise: {words}",
)

BACKENDS = (
    "{word}: transformers unpacks the weights to {word} {words}; scores include their rounding, memory and speed are "
    "those of {word} weights",
    "{word}: activations are rounded to the format and put back into {word} before each layer, at every step: slower "
    "than {word} alone, and no measure of kernels that compute in the format",
    "{word}: whether its layers hold quantized weights was not checked: how it holds them is not known",
    "torchao-int4: 4-bit weights are held in 8 bits each; memory and speed are not those of a 4-bit model",
    "config.json names the architecture {value}, and it was loaded as {word}: its own code was not used",
    "device_map left {n} of {n} parts of the model on the CPU or the disk, first {word}: scores are the same, speed is "
    "not that of a model on GPUs alone",
    "prompts of more than {n} tokens are computed in full: so far does this model attend evenly",
    "prompts share nothing and are computed in full: `prefix_cache` is 0, or no memory is free",
    "the server takes no {words}: its own defaults for them apply to what it generates",
    "the server does not repeat a sampled text with its seed: stages with a temperature do not repeat exactly",
    "served by {url} as {value} ({words}): that its weights are those of the checkpoint's folder cannot be seen from "
    "here, only that its tokenizer is; nor can its memory",
    "vLLM runs this float32 checkpoint in {word}; set dtype: float32 for the precision it is stored in",
    "vLLM's first model runner gives no log-probabilities at given ids when a model is spread over processes: there is "
    "no divergence from the baseline",
    "vram_peak is what vLLM needed: weights, the activations of the largest step that it allows, and the key/value "
    "cache of the largest batch that ran; vram_reserved is what it set aside",
    "the {word} backend cannot serve {word} stages: {reason}",
    "the {word} backend cannot serve a {word} stage here: {reason}",
    "it gives no log-probabilities of a prompt's tokens: {reason}",
    "its tokens cannot be timed: {reason}",
    "prompts share nothing and are computed in full, which is slower: {reason}",
    "the hf backend batches by hand and serves no load: use --backend vllm",
    "the fake model serves no load: give serves_requests_per_second in its fake.json",
)

MEASURING = (
    "the noise floor of {words} was not measured: even the same model changes some answers when batch size or kernels "
    "change; gate calibrate measures it",
    "how much the timing of {words} differs between processes was not measured: its intervals hold for the processes "
    "of this run; gate calibrate measures it",
    "{names}: the baseline changes {n} of its answers against itself, the candidate {n}: the flips are mostly noise",
    "{names}: mean KL {n} nats between two runs of the same model, the error of storing its distributions and of the "
    "kernels",
    "{names}: the candidate writes {n} of the baseline's tokens per answer ({n} against {n}, n = {n}), expected {n} to "
    "{n}: this moves both speed and quality",
    "no quality score: {reason}",
    "the corpus is too short: {n} tokens can be scored of max_tokens {n}",
    "the corpus is too short for look {n}: {n} tokens can be scored",
    "look {n} is left out: it adds no token to look {n}",
    "documents left out since no token of them can be scored: {n}",
    "window {n} is longer than the model's context: scored with {n} tokens",
    "units are blocks of {n} tokens: blocks of one document are taken as independent, which makes intervals too narrow "
    "if they are not",
    "KL is a lower bound, from the baseline's {n} most likely tokens and the mass of the others, kept in {word} ({n})",
    "perplexity only: the {word} backend gives no logits",
    "perplexity only: the baseline's distributions name token {n}, beyond the candidate's vocabulary of {n}",
    "perplexity only: max_store {n} has no room for {n} tokens' distributions",
    "max_store {n}: {n} of {n} log-probabilities a token kept",
    "{n} of {n} prompts do not fit the {n} tokens of context (the longest needs {n}, answer included) and are cut on "
    "the left",
    "found no sandbox that works here (neither bubblewrap nor unshare with setpriv and prlimit is installed), expected "
    "one: the code that a model writes is never run without one. Install bubblewrap (or setpriv, unshare and prlimit "
    "of util-linux) and allow user namespaces: `sysctl kernel.unprivileged_userns_clone=1`, on Ubuntu "
    "`sysctl kernel.apparmor_restrict_unprivileged_userns=0`, in Docker `--security-opt seccomp=unconfined "
    "--security-opt apparmor=unconfined --cap-add SYS_ADMIN`; or take the task out of the policy",
    "task {value}: the data file {value} is empty: there is nothing to measure",
    "the model's code ran in a sandbox ({word}: no network, no privileges, {n} s of CPU time, {n} MiB of memory)",
    "metric {value} is not reported: no metric of the task is 0 or 1 on every answer",
    "metric {value} is not reported: it appeared after the first block",
    "metric {value} is not reported: {reason}",
    "metric {value}: no usable value on {n} items",
    "pass_at_k: the chance that one of {n} answers is right by {value}",
    "a sample of {n} was asked for, there are {n} items: all are used",
    "{word}: the few-shot examples come from the evaluated split and may contain the item itself",
    "judge: no usable scores for {n} answers, first {own}",
    "{n} of {n} items were lost ({word}: {own})",
    "{a stored baseline measurement was|stored baseline measurements were|a stored calibration was} not used: {reason}",
    "the baseline's measurement of {words} was used and not kept: {reason}",
    "corpus {value} ({word}) has no text: expected at least one document, nothing can be scored",
    "task {value} ({word}) cannot be built: {word}",
)

TIMING = (
    "{group}: the single times of {n} of {n} steps of each run are kept, evenly spread",
    "{group}: its requests come for less than {n} times what one of them takes alone, too short a load to be steady: "
    "raise its `requests`",
    "{group} did not become steady in {n} warm-up runs: its times may drift",
    "max_batch_at_context is as many as the engine's key/value cache of {n} tokens holds here{given} "
    "because two models are resident: what fits into the whole device cannot be calculated, since a part of it is "
    "not known",
    "context_tokens is {n}, more than the model's context of {n}: the key/value cache and the largest batch at that "
    "context are not given",
    "stopped after {n}: the time budget left was {n}; raise `budget` or measure fewer items",
    "stopped after {n}: the time budget left was {n}; raise `budget` or measure fewer items: {reason}",
    "the two models do not fit together: each was loaded anew for its blocks",
    "{words}: red at first, so all was timed a second time, in fresh processes",
    "the measurement ended before pair {n} was there: {reason}",
    "the second measurement, which was to confirm {words}, did not end: {reason}",
    "pair {n}{ of the second measurement|} was measured again: {reason}",
    "block {n} of the {role}: {reason}",
    "{group}, the worst of {n}: {reason}",
    "the timed threads waited {n} of the time for a CPU (other processes used {n} of the CPUs)",
    "{n} of {n} pairs of blocks stayed disturbed ({reason}), so nothing is concluded from them: run on a quieter "
    "machine; by itself, {reason}",
    "red once and not confirmed: {reason} (the interval spans both)",
    "at look {n} of {n} ({n} {tokens|pairs of blocks}): {reason}",
    "{first|second, fresh} measurement {words} {n} ({n} to {n})",
    "{word}: the load {group} was saturated ({reason}), so latencies under it grow for as long as it lasts: {reason}, "
    "or put a rule on goodput or throughput",
    "{words} needs {n} single times{ of each role|}, there are {n}: raise blocks, or use a lower percentile",
    "goodput_requests_per_second, load {group}: the {role} serves no such load in {n} of {n} blocks ({own})",
    "the {role} serves no such load in {n} of {n} blocks ({own})",
    "timings of two runs cannot be compared: the machine was not the same at both times; use gate run",
)

JUDGING = (
    "no evidence, after {Holm|Benjamini and Hochberg}'s correction, that the {words} is beyond {word} in any of {n} "
    "groups",
    "{n} of {n} groups cannot be judged: {names} ({names}: {reason})",
    "{n} of {n} groups cannot be judged: {names} ({n} for lost items; {names}: {reason})",
    "worst: {names}",
    "beyond the bound {word} ({n} sure, which is enough once {words}: Holm's step-down); by itself, {reason}",
    "only {n} documents: with fewer than {n} the interval is rough",
    "the {words} {keeps|is beyond} the bound {word} over its whole interval ({n} sure)",
    "{names} did not report {value}, it reported {words}",
    "found {n} documents, expected at least {n}: tokens of one document stand or fall together, so spread the same "
    "number of tokens over more documents",
    "the baseline scored {n} over all {n} items, so nothing can be retained and nothing can be said of the candidate: "
    "fix the template, the matcher or the task",
    "no candidate could fail this rule: the baseline scores {n} and a drop of {n} is allowed; fix the template, the "
    "matcher or the task, or use a tighter bound",
    "no candidate could fail this rule: {word}: {word} allows every score from 0 to 1; use a tighter bound",
    "a candidate that guesses would pass this rule: the baseline scores {n}, guessing {n}, and the bound is {word} "
    "{word}; near chance no regression can be seen: fix the template or the task, or use one that the baseline can do",
    "the driver does not show what this process holds (NVML cannot see it, as in most containers): put the rule on "
    "vram_reserved or vram_peak, or run outside the container",
    "nothing counts energy on a CPU: remove the rule, or measure on a GPU",
    "a CPU has no VRAM: use {word}, or measure on a GPU",
    "the {role} ran out of memory in {group} ({n} in all), so its peak is not known: take that batch size out of "
    "batch_sizes, or use a larger device",
    "the baseline scored {n} on its {n} items, so no share of it can be retained and there is no quality score: fix "
    "the template, the matcher or the task",
    "found looks at {words}, expected the first of those planned ({words}): every other look adds a chance to err; "
    "measure both with the same policy and data",
)

RUNS = (
    "not selected: this run was restricted to --stage {names}",
    "stage {names} ended in {word} (--keep-going runs the rest)",
    "not measured: an earlier rule of this stage stopped it",
    "decided again from run {word} of {time}: no model was run",
    "not asked by this policy: {names}",
    "decided from finished results: no model was run",
    "not judged: {names} (lm-eval's results alone)",
    "the {role} was not measured in that run: it had no such stage",
    "both folders name the same model ({word}): an A/A comparison, or the wrong folder",
    "lm-eval's results do not answer a stage of kind {word}: use gate run for it",
    "{word}: the newest results are used, {word}; there are {n} older ones",
    "{word}: the results of {word} have no sample log and were passed over",
    "{word}: the {role}'s log holds {n} documents, {n} were evaluated by its results",
    "{word}: the policy's sample does not apply, all items in the results are judged",
    "{word}: evaluated by different versions of lm-eval: {words}",
    "{names}: the {role}'s results were made with --limit {n}: the first {n} of {n} documents, which is no random "
    "sample",
    "{names}: the {role}'s results were made with --limit {n}: the first {n} of {n} documents, which is no random "
    "sample: judged in population scope only",
    "the {role}'s folder {value} holds no results, expected run.json of a gate run, or results_*.json and "
    "samples_*.jsonl of lm-eval with --output_path and --log_samples",
    "found no results of {value} in {word}, it has {words}: name tasks in the policy as lm-eval names them (a tag's "
    "tasks one by one)",
    "{role}: {word} is not a number on {n} items",
    "{role}: from run {word}, measured with gate {word}",
    "{role}: lm-eval's results of {word}",
)

WORKERS = (
    "the {role} worker was killed by SIGKILL ({reason}) {words}",
    "the {role} worker failed {in stage|while checking stage} {names}: {word}: {own}",
    "the {role} worker failed {in stage|while checking stage} {names}: {word}",
    "the {role} worker failed while loading the model: {word}",
    "the {role} worker had already ended {words}: close it and start another",
    "no message",
    "out of memory at batch size {n}: {n} fit",
    "a prompt {of {n} tokens and {n} new ones|and its answer} {exceed|need} {words}: shorten the prompt or lower "
    "max_new_tokens",
    "the tokenizer has no chat template: set `chat: false`{|, or give a tokenizer that has one}",
)

SENTENCES = (*CHECKPOINTS, *BACKENDS, *MEASURING, *TIMING, *JUDGING, *RUNS, *WORKERS)
