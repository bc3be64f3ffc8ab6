"""The catalogue of bad input at the door: which tests hold each row, and the words for calldata that is no call."""

import re
from pathlib import Path
from typing import Final

import pytest

from ctt_state.modules.ctt import CTT
from ctt_state.units import Address, hex_of
from tests.rpc_world import served

ALICE, BOB = Address(b"\x0a" * 20), Address(b"\x0b" * 20)
TRANSFER: Final = CTT.named("transferFrom(address,address,uint256)").encode_arguments(ALICE, BOB, 1)
APPROVE_ALL: Final = CTT.named("setApprovalForAll(address,bool)").encode_arguments(BOB, True)

HELD_BY: Final = {
    # the envelope
    "not one JSON value": "test_rpc_envelope::test_what_is_not_one_json_value_is_refused_as_a_whole",
    "too deep, too long, too many": "test_rpc_envelope::test_hostile_json_is_refused_in_little_time_whatever_the_recursion_limit",
    "at the limits of JSON": "test_rpc_envelope::test_the_limits_of_json_are_accepted",
    "jsonrpc, method, id, params": "test_rpc_envelope::test_a_bad_request_is_told_why",
    "a member is missing": "test_rpc_envelope::test_members_must_be_there",
    "no id": "test_rpc_envelope::test_a_notification_runs_and_says_nothing",
    "empty batch": "test_rpc_envelope::test_an_empty_batch_gets_one_error",
    "long batch": "test_rpc_envelope::test_a_long_batch_gets_one_error",
    "bad items in a batch": "test_rpc_envelope::test_each_item_of_a_batch_is_answered",
    "large reply of a batch": "test_rpc_envelope::test_a_batch_stops_at_the_reply_limit",
    "slow batch": "test_rpc_envelope::test_a_batch_stops_at_the_time_limit",
    "above the quota": "test_rpc_access::test_a_client_that_asks_too_much_is_told_when_to_come_back",
    "syncing, stalled, stopping": "test_node_troubles::test_clients_are_told_to_try_again_and_may_read",
    "our own mistake": "test_rpc_envelope::test_our_own_mistakes_tell_the_client_a_number_and_the_log_the_rest",
    "an operator's method": "test_rpc_access::test_an_operators_method_does_not_exist_for_others",
    # parameters
    "quantity": "test_rpc_params::test_a_quantity_has_one_form",
    "data, address, hash, tag, log filter": "test_rpc_params::test_bad_values_are_named",
    "pruned or future state": "test_rpc_eth::test_pruned_and_future_states_are_refused_in_words",
    "range of logs": "test_rpc_eth::test_log_ranges_are_bounded",
    "too many logs": "test_rpc_eth::test_too_many_logs_say_the_limit",
    "unknown filter": "test_rpc_filters::test_an_uninstalled_filter_is_gone",
    "expired filter": "test_rpc_filters::test_a_filter_not_used_for_five_minutes_is_gone",
    "too many filters": "test_rpc_filters::test_filters_of_one_client_are_limited",
    "a call that cannot run": "test_rpc_eth::test_calls_that_cannot_run_say_why",
    "state override": "test_rpc_eth::test_a_state_override_is_declined_and_an_empty_one_ignored",
    "a method of other chains": "test_rpc_eth::test_what_this_chain_does_not_do_is_no_method",
    # raw transactions
    "no transaction": "test_transaction::test_bytes_that_are_no_transaction_are_refused",
    "fields missing or too many": "test_transaction::test_a_missing_or_extra_field_is_refused",
    "integers in another form": "test_transaction::test_an_integer_has_one_form_and_a_longest",
    "a recipient of another length": "test_transaction::test_a_recipient_has_20_bytes",
    "r, s out of range": "test_transaction::test_a_signature_out_of_range_is_an_invalid_sender",
    "v of nobody": "test_transaction::test_a_v_that_no_signer_writes_is_an_invalid_sender",
    "not recoverable": "test_transaction::test_a_signature_that_no_key_made_is_found_at_recovery",
    "no replay protection": "test_transaction::test_a_signature_without_a_chain_id_is_not_replay_protected",
    "another chain": "test_transaction::test_another_chain_id_is_refused",
    "nonce, gas, money, replacement": "test_mempool::test_each_refusal_has_its_text_and_changes_nothing",
    "the words at the door": "test_rpc_eth::test_the_ledgers_refusals_are_told_in_geths_words",
    "places of a sender": "test_mempool::test_a_sender_has_the_places_of_its_role_and_no_more",
    "full pool": "test_mempool::test_the_pool_holds_as_many_as_its_limit_and_no_more",
    "money for no sale": "test_ctt_erc721::test_value_to_a_function_that_takes_none_reverts_with_no_data",
    "a flood of signatures": "test_recovery::test_as_many_wait_as_the_bound_allows_and_no_more",
    # calldata, tokens, meters, governance
    "malformed calldata": "test_ctt_erc721::test_a_malformed_call_reverts_with_no_data",
    "hostile arrays": "test_abi::test_hostile_arrays_are_malformed",
    "text that is no text": "test_abi::test_text_that_is_not_utf8_is_malformed",
    "transfers": "test_ctt_erc721::test_transfers_are_refused_in_openzeppelins_order",
    "approvals": "test_ctt_erc721::test_approving_is_refused_in_a_fixed_order",
    "unknown token": "test_ctt_erc721::test_a_token_that_does_not_exist_is_refused",
    "implausible energy": "test_ctt_energy::test_an_amount_is_bounded_by_power_and_time",
    "counter went back": "test_ctt_energy::test_registers_do_not_run_backwards",
    "reading from the future": "test_ctt_energy::test_a_report_is_at_most_a_minute_ahead_of_its_block",
    "repeated reading": "test_ctt_energy::test_a_repeated_report_does_no_harm",
    "sums above 64 bits": "test_ctt_energy::test_a_prosumers_totals_fill_64_bits_and_no_more",
    "a stranger governs": "test_ctt_admin::test_only_the_admin_governs",
    "proposals": "test_authority::test_a_proposal_is_refused",
    "votes": "test_authority::test_a_vote_is_refused",
}  # fmt: skip


@pytest.mark.parametrize("row", HELD_BY)
def test_a_row_of_the_catalogue_is_held(row: str) -> None:
    module, name = HELD_BY[row].split("::")
    text = (Path(__file__).parent / f"{module}.py").read_text()
    assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE)


@pytest.mark.asyncio
async def test_calldata_that_is_no_call_is_told_where_it_is_wrong() -> None:
    """Code 3, and no data: no Solidity error says it."""
    bad = {
        TRANSFER[:4] + b"\1" + TRANSFER[5:]: "transferFrom: argument 1: address has non-zero padding",
        TRANSFER[:36] + b"\1" + TRANSFER[37:]: "transferFrom: argument 2: address has non-zero padding",
        APPROVE_ALL[:-1] + b"\2": "setApprovalForAll: argument 2: bool is 2",
        b"\1\2\3\4": "unknown function 0x01020304",
    }
    async with served() as node:
        for data, text in bad.items():
            error = await node.error("eth_call", {"to": hex_of(CTT.address), "data": hex_of(data)})
            assert (error["code"], error["data"]) == (3, "0x")
            assert re.search(f"^execution reverted: .*{text}", error["message"]), error
