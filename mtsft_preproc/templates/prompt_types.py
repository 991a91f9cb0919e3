"""The prompt types, as data. The formats are those of MindSpeed-LLM's table of 2026-08-21.

To add one, add an entry; ``{{content}}`` is replaced by the message's text, ``{{idx}}`` by the number of
the round, counted from 0. Every string element is encoded on its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from mtsft_preproc.registry import Registry
from mtsft_preproc.templates.prompt_type import BOS, EOS, PromptType, Style, Token

__all__ = ["prompt_types"]

_HELPFUL = "You are a helpful assistant."
_C = "{{content}}"


def _chatml(name: str, **changes: object) -> PromptType:
    """Return a ChatML format: what Qwen, InternLM and many others share."""
    entry: dict[str, object] = {
        "user": ("<|im_start|>user\n{{content}}<|im_end|>\n<|im_start|>assistant\n",),
        "system": ("<|im_start|>system\n{{content}}<|im_end|>\n",),
        "observation": ("<|im_start|>tool\n{{content}}<|im_end|>\n<|im_start|>assistant\n",),
        "stop_words": ("<|im_end|>",),
        "replace_eos": True,
    }
    return PromptType(name, **{**entry, **changes})  # type: ignore[arg-type]


_CLOSED_REPLY = ("{{content}}<|im_end|>\n",)
_QWEN_TOOL_RESULT = (
    "<|im_start|>user\n<tool_response>\n{{content}}\n</tool_response><|im_end|>\n<|im_start|>assistant\n",
)
_GLM4_STOPS = ("<|user|>", "<|observation|>")
_R1_QUESTION = (
    "<|im_start|>user\nA conversation between User and Assistant. The user asks a question, and the "
    "Assistant solves it. The assistant first thinks about the reasoning process in the mind and then "
    "provides the user with the answer. The reasoning process and answer are enclosed within <think> "
    "</think> and <answer> </answer> tags, respectively, i.e., <think> reasoning process here </think>"
    "<answer> answer here </answer>Put your final answer within \\\\boxed{}. {{content}}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
_MAGISTRAL_SYSTEM = (
    "system_prompt\n\nA user will ask you to solve a task. You should first draft your thinking process "
    "(inner monologue) until you have derived the final answer. Afterwards, write a self-contained summary "
    "of your thoughts (i.e. your summary should be succinct but contain all the critical steps you needed "
    "to reach the conclusion). You should use Markdown to format your response. Write both your thoughts "
    "and summary in the same language as the task posed by the user. NEVER use \\boxed{} in your "
    "response.\nYour thinking process must follow the template below:\n<think>\nYour thoughts or/and "
    "draft, like working through an exercise on scratch paper. Be as casual and as long as you want until "
    "you are confident to generate a correct answer.\n</think>\nHere, provide a concise summary that "
    "reflects your reasoning and presents a clear final answer to the user. Don't mention that this is a "
    "summary.\n\nProblem:\n\n"
)


def _table() -> Iterable[PromptType]:
    yield PromptType("empty", assistant=(_C,))
    yield PromptType("trl", assistant=(_C,), prefix=(BOS,))
    yield PromptType("hunyuan", assistant=(_C,), default_system=_HELPFUL)
    yield PromptType(
        "default",
        user=("Human: {{content}}\nAssistant:",),
        system=("{{content}}\n",),
        separator=("\n",),
    )
    yield PromptType(
        "alpaca",
        user=("### Instruction:\n{{content}}\n\n### Response:\n",),
        separator=("\n\n",),
        default_system=(
            "Below is an instruction that describes a task. "
            "Write a response that appropriately completes the request.\n\n"
        ),
    )
    yield PromptType("baichuan2", user=("<reserved_106>{{content}}<reserved_107>",), efficient_eos=True)
    yield PromptType(
        "bailing_mini",
        user=("<role>HUMAN</role>{{content}}<|role_end|><role>ASSISTANT</role>",),
        assistant=("{{content}}<|role_end|>",),
        system=("<role>SYSTEM</role>{{content}}<|role_end|>",),
        observation=(
            "<role>OBSERVATION</role>\n<tool_response>\n{{content}}\n</tool_response>"
            "<|role_end|><role>ASSISTANT</role>",
        ),
        function=("{{content}}<|role_end|>",),
        stop_words=("<|endoftext|>",),
        efficient_eos=True,
        tool_format="ling",
    )
    yield PromptType(
        "chatglm2",
        user=("[Round {{idx}}]\n\n问：{{content}}\n\n答：",),
        prefix=(Token("[gMASK]"), Token("sop")),
        separator=("\n\n",),
        efficient_eos=True,
    )
    yield PromptType(
        "chatglm3",
        user=(Token("<|user|>"), "\n", _C, Token("<|assistant|>")),
        assistant=("\n", _C),
        system=(Token("<|system|>"), "\n", _C),
        observation=(Token("<|observation|>"), "\n", _C, Token("<|assistant|>")),
        prefix=(Token("[gMASK]"), Token("sop")),
        stop_words=_GLM4_STOPS,
        efficient_eos=True,
        tool_format="glm4",
    )
    yield PromptType(
        "chatglm3_system",
        user=(Token("<|user|>"), "\n", _C, Token("<|assistant|>")),
        assistant=("\n", _C),
        system=(Token("[gMASK]"), Token("sop"), Token("<|system|>"), "\n", _C),
        observation=(Token("<|observation|>"), "\n", _C, Token("<|assistant|>")),
        function=("{{name}}\n{{arguments}}",),
        default_system=(
            "You are ChatGLM3, a large language model trained by Zhipu.AI. "
            "Follow the user's instructions carefully. Respond using markdown."
        ),
        stop_words=_GLM4_STOPS,
        efficient_eos=True,
    )
    for name, style in (("glm4", Style.DEFAULT), ("glm4_moe", Style.REASONING)):
        yield PromptType(
            name,
            user=("<|user|>\n{{content}}<|assistant|>",),
            assistant=("\n{{content}}",),
            system=("<|system|>\n{{content}}",),
            observation=("<|observation|>\n{{content}}<|assistant|>",),
            function=("{{name}}\n{{arguments}}",),
            prefix=("[gMASK]<sop>",),
            stop_words=_GLM4_STOPS,
            efficient_eos=True,
            tool_format=name,
            style=style,
        )
    stops = ("<|im_end|>", "<|im_start|>")
    german = "Du bist ein freundlicher und hilfsbereiter KI-Assistent."
    yield _chatml("chatml", separator=("\n",), stop_words=stops)
    yield _chatml("chatml_de", separator=("\n",), stop_words=stops, default_system=german)
    yield PromptType("cpm", user=("<用户>{{content}}<AI>",), prefix=(BOS,))
    yield _chatml("qwen", separator=("\n",), default_system=_HELPFUL)
    yield _chatml("qwen_r1", user=(_R1_QUESTION,), separator=("\n",), default_system=_HELPFUL)
    yield _chatml(
        "qwen_math_r1",
        separator=("\n",),
        default_system="Please reason step by step, and put your final answer within \\boxed{}.",
    )
    yield _chatml(
        "qwen_lf",
        assistant=_CLOSED_REPLY,
        observation=_QWEN_TOOL_RESULT,
        separator=("\n",),
        default_system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
        style=Style.NO_SEPARATOR,
    )
    yield _chatml(
        "qwen3",
        assistant=_CLOSED_REPLY,
        function=_CLOSED_REPLY,
        observation=_QWEN_TOOL_RESULT,
        tool_format="qwen",
        style=Style.REASONING,
    )
    # In these two a tool result takes the user's format.
    yield _chatml("intern2", assistant=_CLOSED_REPLY, observation=None, prefix=(BOS,), replace_eos=False)
    yield _chatml(
        "plm",
        assistant=_CLOSED_REPLY,
        observation=None,
        default_system=_HELPFUL,
        stop_words=("<|endoftext|>",),
    )
    yield PromptType(
        "llama3",
        user=(
            "<|start_header_id|>user<|end_header_id|>\n\n{{content}}<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        system=("<|start_header_id|>system<|end_header_id|>\n\n{{content}}<|eot_id|>",),
        observation=(
            "<|start_header_id|>tool<|end_header_id|>\n\n{{content}}<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        prefix=(BOS,),
        stop_words=("<|eot_id|>",),
        replace_eos=True,
    )
    yield PromptType(
        "llama2",
        user=(BOS, "[INST] {{content}} [/INST]"),
        system=("<<SYS>>\n{{content}}\n<</SYS>>\n\n",),
        style=Style.SYSTEM_IN_USER,
    )
    for name in ("mistral", "mixtral"):
        yield PromptType(name, user=("[INST] {{content}} [/INST]",), prefix=(BOS,))
    yield PromptType(
        "magistral",
        user=("[INST]{{content}}[/INST]",),
        assistant=(_C, EOS),
        system=("[SYSTEM_PROMPT]{{content}}[/SYSTEM_PROMPT]",),
        prefix=(BOS,),
        default_system=_MAGISTRAL_SYSTEM,
        style=Style.REASONING,
    )
    yield PromptType(
        "gemma",
        user=("<start_of_turn>user\n{{content}}<end_of_turn>\n<start_of_turn>model\n",),
        observation=("<start_of_turn>tool\n{{content}}<end_of_turn>\n<start_of_turn>model\n",),
        separator=("<end_of_turn>\n",),
        prefix=(BOS,),
        efficient_eos=True,
    )
    for name in ("deepseek2", "deepseek2-lite", "minicpm3"):
        yield PromptType(
            name,
            user=("User: {{content}}\n\nAssistant:",),
            system=("{{content}}\n\n",),
            prefix=(BOS,),
        )
    yield PromptType("deepseek3", user=("<｜User｜>{{content}}<｜Assistant｜>",), prefix=(BOS,))
    yield PromptType(
        "gpt_oss",
        user=("<|start|>user<|message|>{{content}}<|end|><|start|>assistant",),
        assistant=("{{content}}<|end|>",),
        system=("<|start|>system<|message|>{{content}}<|end|>",),
        default_system="You are ChatGPT, a large language model trained by OpenAI.",
        efficient_eos=True,
        thought_words=(
            "<|channel|>analysis<|message|>",
            "<|end|><|start|>assistant<|channel|>final<|message|>",
        ),
        style=Style.REASONING,
    )


#: All prompt types of the package, by name.
prompt_types: Registry[PromptType] = Registry("prompt type", "--prompt-type")
for _entry in _table():
    prompt_types.add(_entry.name, _entry)
