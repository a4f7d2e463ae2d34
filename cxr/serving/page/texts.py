"""Every text of the page and of the report, in every language. A test holds the tables to the same keys."""
from __future__ import annotations

from collections.abc import Callable, Iterable

from cxr.models.recipe import Recipe

LANGUAGES = {"en": "English", "zh": "中文"}

TEXTS = {
    "en": {
        "title": "Chest X-ray: scores, and where the model looked",
        "disclaimer": "Research use, not for diagnosis",
        "intro": "Upload frontal chest X-rays, or take drawn ones. Nothing that you upload is written to disk, and "
                 "nobody else sees it.",
        "language": "Language",
        "upload": "X-rays (PNG, JPEG, BMP, TIFF or DICOM; up to {megabytes} MB and {megapixels} million pixels each)",
        "too_many": "Only the first {most} images are shown: take some away to see the others.",
        "phantoms": "Bundled phantoms (drawn by the program, no patient)",
        "phantoms_hint": "Choose phantoms",
        "phantom": "Phantom {number}: {finding}",
        "nothing_yet": "Upload an X-ray or choose a phantom to begin.",
        "no_models": "There is no model yet",
        "no_models_how": "The page offers every checkpoint below {folders}, and there is none. Train one on drawn "
                         "X-rays in about two minutes, then load this page again:",
        "no_models_published": "Or get published weights. {name}: {source}.",
        "unusable": "Files that cannot be used ({count})",
        "model": "Model and checkpoint",
        "method": "CAM method",
        "layer": "Layer",
        "last_layer": "{name} (last, default)",
        "class": "Class",
        "image": "Image",
        "starting": "Loading the model ...",
        "working": "Computing {name} ...",
        "in_line": "Others are being served: {ahead} before you. Your turn comes by itself.",
        "busy": "The line is full: try again in a minute.",
        "unreadable": "This image cannot be used.",
        "failed": "Something went wrong in the program. The operator finds the details in the server's log.",
        "opacity": "Opacity of the heat map",
        "colormap": "Colours",
        "boxes": "Boxes around the strongest parts",
        "boxes_share": "Box at and above this share of the maximum",
        "seen": "The part of {name} that the network saw, and {method} of {finding} on it",
        "seen_boxes": "White boxes: where the map reaches {share} of its maximum.",
        "faint": "This class scored {score}: the map shows where its evidence is strongest, not that there is any.",
        "flat": "The map of this class is flat: nothing in the image speaks for it.",
        "scores": "Scores",
        "score_note": "Probability of each finding on its own, as the model gives it.",
        "score_note_exclusive": "Probability of each class; exactly one is meant, and the highest decides.",
        "threshold_note": "The line marks the threshold fitted for these weights; from it on a finding is called.",
        "no_threshold_note": "No thresholds were fitted for these weights.",
        "finding": "Finding",
        "probability": "Probability",
        "threshold": "Threshold",
        "called": "called",
        "all_images": "All images",
        "highest": "Highest score",
        "all_classes": "All classes",
        "montage_note": "Each map is stretched to the whole colour range: compare places, not strengths.",
        "compare": "Two methods",
        "second_method": "Second method",
        "download_picture": "Picture (PNG)",
        "download_montage": "All classes (PNG)",
        "download_csv": "Scores (CSV)",
        "download_json": "Scores (JSON)",
        "download_report": "Report (HTML, one page to print)",
        "report_of": "Chest X-ray {name}",
        "report_details": "How it was made",
        "original": "Original",
        "heat_map": "{method} of {finding}",
        "input": "Image",
        "input_size": "{width} x {height} pixels, SHA-256 {digest}",
        "checkpoint": "Checkpoint",
        "preprocessing": "Preprocessing",
        "versions": "Versions",
        "made": "Made",
    },
    "zh": {
        "title": "胸部 X 光片:模型评分与关注区域",
        "disclaimer": "仅供研究,不可用于诊断",
        "intro": "请上传正位胸片,或选用程序绘制的体模。上传的内容不会写入磁盘,其他人也看不到。",
        "language": "语言",
        "upload": "胸片(PNG、JPEG、BMP、TIFF 或 DICOM;每张不超过 {megabytes} MB、{megapixels} 百万像素)",
        "too_many": "只显示前 {most} 张图像:请移除一些再查看其余图像。",
        "phantoms": "内置体模(由程序绘制,不含患者数据)",
        "phantoms_hint": "选择体模",
        "phantom": "体模 {number}:{finding}",
        "nothing_yet": "请上传胸片或选择体模。",
        "no_models": "尚无可用模型",
        "no_models_how": "本页列出 {folders} 下的所有检查点,目前没有。可用绘制的胸片训练一个(约两分钟),然后刷新本页:",
        "no_models_published": "也可以使用已发布的权重。{name}:{source}。",
        "unusable": "无法使用的文件({count})",
        "model": "模型与检查点",
        "method": "CAM 方法",
        "layer": "网络层",
        "last_layer": "{name}(最后一层,默认)",
        "class": "类别",
        "image": "图像",
        "starting": "正在加载模型……",
        "working": "正在计算 {name}……",
        "in_line": "正在处理其他用户的请求:前面还有 {ahead} 个,稍后会自动轮到您。",
        "busy": "排队已满:请一分钟后再试。",
        "unreadable": "无法使用该图像。",
        "failed": "程序出错,详情见服务器日志,请联系管理员。",
        "opacity": "热力图不透明度",
        "colormap": "配色",
        "boxes": "框出最强区域",
        "boxes_share": "框选阈值(占最大值的比例)",
        "seen": "{name} 中网络所见的部分,以及 {finding} 的 {method} 热力图",
        "seen_boxes": "白框:热力图达到最大值 {share} 的区域。",
        "faint": "该类别评分仅为 {score}:热力图只表示证据相对最强的位置,并不说明确有病变。",
        "flat": "该类别的热力图是平的:图像中没有支持它的证据。",
        "scores": "评分",
        "score_note": "模型给出的各征象概率,彼此独立。",
        "score_note_exclusive": "各类别的概率;类别互斥,取最高者。",
        "threshold_note": "竖线为针对该权重拟合的阈值;达到阈值即判为阳性。",
        "no_threshold_note": "该权重没有拟合阈值。",
        "finding": "征象",
        "probability": "概率",
        "threshold": "阈值",
        "called": "阳性",
        "all_images": "全部图像",
        "highest": "最高评分",
        "all_classes": "全部类别",
        "montage_note": "每幅热力图都拉伸到完整色阶:只宜比较位置,不宜比较强弱。",
        "compare": "两种方法对比",
        "second_method": "第二种方法",
        "download_picture": "图片(PNG)",
        "download_montage": "全部类别(PNG)",
        "download_csv": "评分(CSV)",
        "download_json": "评分(JSON)",
        "download_report": "报告(HTML,单页可打印)",
        "report_of": "胸部 X 光片 {name}",
        "report_details": "生成方式",
        "original": "原图",
        "heat_map": "{finding} 的 {method}",
        "input": "图像",
        "input_size": "{width} x {height} 像素,SHA-256 {digest}",
        "checkpoint": "检查点",
        "preprocessing": "预处理",
        "versions": "版本",
        "made": "生成时间",
    },
}


def naming(language: str, recipes: Iterable[Recipe]) -> Callable[[str], str]:
    """How classes are called on the page.

    Args:
        language: of `LANGUAGES`.
        recipes: that translate the names of their classes.

    Returns:
        `name(class)`: a translation with the class's name as the model has it beside it, or that name alone.
    """
    known = {name: f"{there} {name}" for recipe in recipes
             for name, there in recipe.translations.get(language, {}).items()}
    return lambda name: known.get(name, name)


def speaker(language: str) -> Callable[..., str]:
    """What gives the texts of a language.

    Args:
        language: of `LANGUAGES`.

    Returns:
        `say(key, **values)`: the text of that name, with its values filled in.
    """
    table = TEXTS[language]
    return lambda key, /, **values: table[key].format(**values)
