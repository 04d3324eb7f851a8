"""The run directory's format: what a run writes, each file with its name, reader and writer in one module.

| file | module | what |
|---|---|---|
| `config.json`, `.lock` | `directory` | resolved configuration and versions; one process at a time |
| `begun` in `config.json` | `origin` | command, commit, device and date of the first start |
| `progress.json` | `directory` | how many phases are done |
| `finished.json` | `finished` | what a run of a sweep was finished with |
| `results.csv` | `results` | one measurement a row |
| `metrics.json` | `provenance` | of every metric: which values are better, and what its numbers depend on |
| `metrics.jsonl`, `tensorboard/` | `curves`, `events` | training curves |
| `tickets/<name>/` | `tickets` | bit-packed mask and provenance of a ticket |
| `checkpoints/rounds/` | `kept` | final states of every phase |
| `images.safetensors`, `channel_masks.safetensors` | `pictures` | what the figures draw |

Every file is replaced whole, with its checksum (`files.write_sealed`), or appended to and cut where a run goes on
(`curves`).
"""
