"""Record -> dialogue; one file per data format.

To add a format: write one file with a :class:`~mtsft_preproc.handlers.base.Handler` and list it here.
"""

from mtsft_preproc.dialogue import Dialogue, Message, Role, ToolCall
from mtsft_preproc.errors import RecordError
from mtsft_preproc.handlers.alpaca import AlpacaHandler
from mtsft_preproc.handlers.base import (
    DialogueHandler,
    Handler,
    HandlerChoice,
    HandlerOptions,
    PairHandler,
    TextHandler,
    handlers,
    needed_text,
    text_field,
)
from mtsft_preproc.handlers.chatglm import ChatGLMHandler
from mtsft_preproc.handlers.choose import make_handler
from mtsft_preproc.handlers.columns import METADATA, check_columns, check_kept, first_records
from mtsft_preproc.handlers.conversation import ConversationHandler
from mtsft_preproc.handlers.dataset_info import DatasetEntry, read_dataset_info
from mtsft_preproc.handlers.detect import Detected, detect
from mtsft_preproc.handlers.firefly import FireflyHandler
from mtsft_preproc.handlers.instruction import BelleHandler, GeneralHandler, LeetcodeHandler
from mtsft_preproc.handlers.moss import MossHandler, MossInstructionHandler, MossMultiTurnHandler
from mtsft_preproc.handlers.openai import OpenAIHandler
from mtsft_preproc.handlers.preference import AlpacaPairHandler, SharegptPairHandler
from mtsft_preproc.handlers.pretrain import (
    AlpacaPretrainHandler,
    GeneralPretrainHandler,
    SharegptPretrainHandler,
    StackOverflowHandler,
)
from mtsft_preproc.handlers.prompts import PPOAlpacaHandler, R1AlpacaHandler, R1SharegptHandler
from mtsft_preproc.handlers.sharegpt import BelleChatHandler, HunyuanHandler, SharegptHandler
from mtsft_preproc.handlers.user_file import handler, load_user_handlers, user_file_sha256

handlers.add("AlpacaStyleInstructionHandler", AlpacaHandler, "alpaca")
handlers.add("AlpacaStylePairwiseHandler", AlpacaPairHandler, "alpaca-pairwise")
handlers.add("SharegptStyleInstructionHandler", SharegptHandler, "sharegpt")
handlers.add("SharegptStylePairwiseHandler", SharegptPairHandler, "sharegpt-pairwise")
handlers.add("OpenAIInstructionHandler", OpenAIHandler, "openai", "messages")
handlers.add("ConversationHandler", ConversationHandler, "conversation")
handlers.add("FireflyHandler", FireflyHandler, "firefly")
handlers.add("BelleChatHandler", BelleChatHandler, "belle-chat")
handlers.add("HunyuanInstructionHandler", HunyuanHandler, "hunyuan")
handlers.add("PPOAlpacaStyleInstructionHandler", PPOAlpacaHandler, "alpaca-ppo")
handlers.add("R1AlpacaStyleInstructionHandler", R1AlpacaHandler, "alpaca-r1")
handlers.add("R1SharegptStyleInstructionHandler", R1SharegptHandler, "sharegpt-r1")
handlers.add("GeneralInstructionHandler", GeneralHandler, "general")
handlers.add("BelleMultiTurnInstructionHandler", BelleHandler, "belle")
handlers.add("LeetcodePythonInstructionHandler", LeetcodeHandler, "leetcode")
handlers.add("MOSSInstructionHandler", MossInstructionHandler, "moss-instruction")
handlers.add("MOSSMultiTurnHandler", MossMultiTurnHandler, "moss-multi-turn")
handlers.add("MOSSHandler", MossHandler, "moss")
handlers.add("ChatGLMHandler", ChatGLMHandler, "chatglm")
handlers.add("GeneralPretrainHandler", GeneralPretrainHandler, "pretrain")
handlers.add("AlpacaPretrainHandler", AlpacaPretrainHandler, "alpaca-pretrain")
handlers.add("SharegptPretrainHandler", SharegptPretrainHandler, "sharegpt-pretrain")
handlers.add("StackOverflowPythonPretrainHandler", StackOverflowHandler, "stackoverflow")

__all__ = [
    "METADATA",
    "ConversationHandler",
    "DatasetEntry",
    "Detected",
    "Dialogue",
    "DialogueHandler",
    "Handler",
    "HandlerChoice",
    "HandlerOptions",
    "Message",
    "PairHandler",
    "RecordError",
    "Role",
    "TextHandler",
    "ToolCall",
    "check_columns",
    "check_kept",
    "detect",
    "first_records",
    "handler",
    "handlers",
    "load_user_handlers",
    "make_handler",
    "needed_text",
    "read_dataset_info",
    "text_field",
    "user_file_sha256",
]
