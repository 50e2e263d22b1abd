package wire

// CloseCode is why a session ended, as a WebSocket close code. The hundreds tell a client what to do, so that it can
// obey a code that is newer than itself:
//
//	4000-4099  come back, with backoff, or after the delay that a goaway named
//	4100-4199  come back with another token
//	4200-4299  do not come back by yourself
type CloseCode uint16

// The close codes. Their names are the metric labels, the reasons in kick and goaway frames, and the audit words.
const (
	CloseGoingAway  CloseCode = 4000 // the node drains or stops
	CloseSlow       CloseCode = 4001 // the client did not read; it continues from its cursor
	CloseSilent     CloseCode = 4002 // no sign of life for an interval and the grace
	CloseOverloaded CloseCode = 4003 // the node cannot take more; a goaway names the delay
	CloseInternal   CloseCode = 4004 // the server failed
	CloseLost       CloseCode = 4005 // the connection broke; never sent, only counted
	CloseNormal     CloseCode = 4006 // the client said goodbye; never sent, only counted

	CloseProductFull CloseCode = 4007 // the product holds as many sessions as it may; a goaway names the delay

	CloseTokenExpired CloseCode = 4100 // the token ran out on the live session
	CloseTokenRefused CloseCode = 4101 // the token does not hold: signature, audience, form, key unknown or revoked

	CloseReplaced       CloseCode = 4200 // the same device connected again, or the session policy made room
	CloseRevoked        CloseCode = 4201 // the device, the user or the token was revoked
	CloseProtocol       CloseCode = 4202 // the client broke the protocol: order, form, size or UTF-8 of frames
	CloseVersion        CloseCode = 4203 // the client's schema version is not spoken here
	CloseConnectTimeout CloseCode = 4204 // no connect frame in time
	CloseFlood          CloseCode = 4205 // too many frames a second
	CloseDeleted        CloseCode = 4206 // the device was deleted
	CloseForbidden      CloseCode = 4207 // the product is disabled, or does not allow this
	CloseKicked         CloseCode = 4208 // the product's server ended the session
	ClosePolicy         CloseCode = 4209 // the session policy turned this login away
)

var closeNames = map[CloseCode]string{
	CloseGoingAway: "going_away", CloseSlow: "slow", CloseSilent: "silent", CloseOverloaded: "overloaded",
	CloseInternal: "internal", CloseLost: "lost", CloseNormal: "normal",
	CloseProductFull:  "product_full",
	CloseTokenExpired: "token_expired", CloseTokenRefused: "token_refused",
	CloseReplaced: "replaced", CloseRevoked: "revoked", CloseProtocol: "protocol", CloseVersion: "version",
	CloseConnectTimeout: "connect_timeout", CloseFlood: "flood", CloseDeleted: "deleted", CloseForbidden: "forbidden",
	CloseKicked: "kicked",
	ClosePolicy: "policy",
}

// String returns the code's name; "unknown" for one that is not listed.
func (c CloseCode) String() string {
	if n, ok := closeNames[c]; ok {
		return n
	}
	return "unknown"
}

// Duty is what a close code asks of a client.
type Duty uint8

// The duties.
const (
	ComeBack   Duty = iota // reconnect with backoff
	RenewToken             // reconnect with another token
	StayAway               // do not reconnect until a person or the application asks for it
)

// Duty returns what the code asks of a client. A code outside the ranges, such as the 1000s of RFC 6455, means ComeBack.
func (c CloseCode) Duty() Duty {
	switch {
	case c >= 4100 && c < 4200:
		return RenewToken
	case c >= 4200 && c < 4300:
		return StayAway
	}
	return ComeBack
}
