"""Classification of defects: backbones fine-tuned or probed with few and with all labels."""
