package strictjson

// Code says what is wrong with a value. Codes are part of the REST contract (FieldErrorCode in openapi.yaml).
type Code string

// The codes.
const (
	Required         Code = "required"          // a member that must be there is not
	UnknownMember    Code = "unknown_member"    // a member that there is not
	DuplicateMember  Code = "duplicate_member"  // a member that stands twice
	WrongType        Code = "wrong_type"        // not the type it should be
	NotOneOf         Code = "not_one_of"        // not exactly one of several members
	NotAllowed       Code = "not_allowed"       // not together with another member's value
	Empty            Code = "empty"             // nothing where something must be
	TooLong          Code = "too_long"          // more bytes than allowed
	TooSmall         Code = "too_small"         // a number below the least
	TooLarge         Code = "too_large"         // a number above the most
	TooMany          Code = "too_many"          // more items or members than allowed
	TooFew           Code = "too_few"           // fewer than needed
	Duplicate        Code = "duplicate"         // an item that stands twice
	UnknownValue     Code = "unknown_value"     // none of the words allowed
	ControlCharacter Code = "control_character" // text with a control character
	BadText          Code = "bad_text"          // text with half a surrogate pair
	BadBase64        Code = "bad_base64"        // not padded standard base64
	BadFormat        Code = "bad_format"        // text of another form than required
	TooDeep          Code = "too_deep"          // nested deeper than allowed
)

// Codes returns all of them.
func Codes() []Code {
	return []Code{
		Required, UnknownMember, DuplicateMember, WrongType, NotOneOf, NotAllowed, Empty, TooLong, TooSmall, TooLarge, TooMany,
		TooFew, Duplicate, UnknownValue, ControlCharacter, BadText, BadBase64, BadFormat, TooDeep,
	}
}

// FieldError is one mistake of content.
type FieldError struct {
	Pointer string // RFC 6901; empty is the document itself
	Code    Code
	Detail  string // for people: the rule that does not hold, never the value
}
