// Package wire writes and reads the frames that devices and rooms exchange. It stands between the transports, which
// carry bytes, and the session, which knows what they mean; it keeps no state and decides nothing. The contract itself,
// for people who write a client, is api/README.md; this is the same story with the bytes beside it.
//
// # A session
//
// A device opens a connection and sends connect: its schema version, its token, and the cursor where it wants to go on.
// The server answers welcome: the version that both speak, the session, the cursor as it stands now, how each of the
// two slots begins, and the limits and heartbeat that the client has to keep. Or it answers kick or goaway and closes.
//
// Then the server sends message for everything that waits and everything that comes, each with its slot and position;
// recall for what a sender took back; gap where a limit or a loss left a hole that it knows of; and cursor whenever
// the cursor is not what a client would work out from those: after a catch-up, after a thousand entries that were not
// for this device, after the store changed under it, and before goodbye. The client answers with ack, at most once a
// second, which carries a cursor: all up to there is handled. It reports event when a person saw or clicked a message.
//
// Either side sends ping when the line was silent, and the other answers pong. refresh carries a new token one way, and
// asks for or confirms one the other way. error refuses one frame. kick or goaway ends it, and a [CloseCode] says in its
// hundreds whether the client comes back.
//
// # JSON
//
// A frame is one object. Its member "type" is the frame's name and is written first; readers take members in any order,
// pass over those they do not know, and take null for absence (in body it is a value). Empty strings and zero values of
// optional members are left out. Numbers are integers from 0 to 2^53-1, without fraction or exponent; message ids and
// sessions are strings of decimal digits. Moments are milliseconds since 1970 UTC.
//
//	connect  version token? cursor? client?
//	welcome  version session cursor own common heartbeat_ms grace_ms frame_bytes frames_per_second time expires?
//	message  slot+pos? id time expires? ref? collapse_key? headers? (body or body_base64)?
//	ack      cursor
//	cursor   cursor reason
//	ping     (nothing)
//	pong     (nothing)
//	gap      slot from to reason
//	kick     code reason? detail? by? on?
//	goaway   code reason? delay_ms? address?
//	recall   slot pos id
//	event    event id time?
//	refresh  token? expires?
//	error    code detail?
//	tags     join? leave? from the client; tags? from the server
//
// # Binary
//
// A frame is its type byte and then its fields, each in its place whether empty or not. What follows the last field was
// appended by a later version, and readers pass over it. The frame's length is the transport's affair.
//
//	byte     one byte
//	n        unsigned LEB128 in as few bytes as it needs, at most 10
//	text     n, then that many bytes of UTF-8
//
//	 1 connect  n version · text token · text cursor · text client
//	 2 welcome  n version · n session · text cursor · byte own · byte common · n heartbeat_ms · n grace_ms ·
//	            n frame_bytes · n frames_per_second · n time · n expires (0: not said)
//	 3 message  byte slot (255: none, and no pos) · n pos · tail
//	      tail  n id · n time · n expires (0: none) · byte flags (bit 0: the body is any bytes, not JSON; readers pass
//	            over the others) · text ref · text collapse_key · n count of headers · for each text name, text value ·
//	            n length of body · body
//	 4 ack      text cursor
//	 5 cursor   text cursor · byte reason (0 caught_up, 1 passed, 2 goodbye, 3 lineage)
//	 6 ping
//	 7 pong
//	 8 gap      byte slot · n from · n to · byte reason (0 limit, 1 reset, 2 lost)
//	 9 kick     n code · text reason · text detail · text by · text on
//	10 goaway   n code · text reason · n delay_ms · text address
//	11 recall   byte slot · n pos · n id
//	12 event    byte event (1 displayed, 2 clicked) · n id · n time (0: not said)
//	13 refresh  text token · n expires (0: not said)
//	14 error    text code · text detail
//	15 tags     n count of join · texts · n count of leave · texts · n count of tags · texts
//
// own and common of welcome are 0 resumed, 1 beginning, 2 head, 3 reset. Slots are 0 own and 1 common.
//
// # Invariants
//
//   - What a message's receivers are sent alike, its tail, is encoded at most once an encoding ([Shared]); a session
//     adds slot and position in front ([AppendOut]), without allocating.
//   - Both encodings carry the same fields: what one decodes, the other encodes to the same frame.
//   - A decoder checks each length before it uses it, allocates in proportion to its input, keeps no reference to it,
//     and quotes none of it in errors.
//   - No reflection: the JSON writer and scanner are written by hand and know just the frames.
package wire
